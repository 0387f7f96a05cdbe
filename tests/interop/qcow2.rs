//! Encrypted qcow2 images with QEMU in both directions: `qemu-img` makes and writes an image, we
//! read it, and write it for `qemu-img` to read and check; then the same with an image that we
//! made. Whole payloads are compared.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::container::{Container, CreateOptions, OpenOptions, Undo, Version};
use luksmith::layout::{ImageError, NewImage, Qcow2};
use luksmith::volume::Volume;

use crate::ours;
use crate::payload::{assert_same, file, payload};
use support::peers;

const KEY: &[u8] = b"first key";
const OTHER: &[u8] = b"second key";
/// Whole sectors, but not whole clusters.
const SIZE: usize = (5 << 20) + 512 * 7;

/// `qemu-img` and `qemu-io` on one image.
struct Image {
    img: PathBuf,
    io: PathBuf,
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Image {
    fn new() -> Option<Self> {
        let (img, io) = (peers::find("qemu-img")?, peers::find("qemu-io")?);
        let folder = tempfile::tempdir().unwrap();
        file(folder.path(), "key", KEY);
        file(folder.path(), "other", OTHER);
        let path = folder.path().join("image.qcow2");
        Some(Self {
            img,
            io,
            folder,
            path,
        })
    }

    fn secrets(&self, command: &mut Command) {
        for name in ["key", "other"] {
            let place = self.folder.path().join(name);
            let object = format!("secret,id={name},file={}", place.display());
            command.arg("--object").arg(object);
        }
    }

    fn opts(&self, key: &str) -> String {
        let path = self.path.display();
        format!("driver=qcow2,encrypt.key-secret={key},file.filename={path}")
    }

    /// Runs `qemu-img`. Tries again if it fails because it could not get an accurate CPU usage.
    fn img(&self, verb: &str, arguments: &[&str]) -> String {
        for _ in 0..20 {
            let mut command = Command::new(&self.img);
            command.arg(verb);
            self.secrets(&mut command);
            let output = peers::output(command.args(arguments));
            let error = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                return String::from_utf8_lossy(&output.stdout).into_owned();
            }
            assert!(error.contains("accurate CPU usage"), "{command:?}: {error}");
        }
        panic!("qemu-img {verb} never got an accurate CPU usage");
    }

    fn create(&self, options: &str) {
        let encryption = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10";
        let options = format!("{encryption},{options}");
        let (path, size) = (self.path.display().to_string(), SIZE.to_string());
        self.img(
            "create",
            &["-q", "-f", "qcow2", "-o", &options, &path, &size],
        );
    }

    /// Checks that `qemu-img check` finds no error and no leak.
    fn check(&self) {
        let text = self.img("check", &["--image-opts", &self.opts("key")]);
        assert!(text.contains("No errors were found"), "{text}");
    }

    fn io(&self, commands: &[&str]) {
        let mut command = Command::new(&self.io);
        self.secrets(&mut command);
        for text in commands {
            command.args(["-c", text]);
        }
        let text = peers::run(command.arg("--image-opts").arg(self.opts("key")));
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains("failed"), "{command:?}: {text}");
    }

    /// The whole payload as QEMU reads it, or that of a snapshot.
    fn converted(&self, key: &str, snapshot: Option<&str>) -> Vec<u8> {
        let raw = self.folder.path().join("raw");
        let (opts, raw_text) = (self.opts(key), raw.display().to_string());
        let mut arguments = vec!["-O", "raw", "--image-opts", &opts, &raw_text];
        if let Some(name) = snapshot {
            arguments.splice(0..0, ["-l", name]);
        }
        self.img("convert", &arguments);
        std::fs::read(raw).unwrap()
    }

    fn qcow2(&self) -> Arc<Qcow2> {
        Arc::new(Qcow2::open(ours::storage(&self.path)).unwrap())
    }

    fn volume(&self, key: &[u8]) -> Volume {
        let image = self.qcow2();
        let container =
            Container::open(image.header_storage(), OpenOptions::new(Undo::NotLookedFor)).unwrap();
        assert_eq!(container.version(), Version::Luks1);
        let unlocked = ours::unlock(&container, key);
        container.volume_in(image, &unlocked).unwrap()
    }

    /// An image that we make.
    fn create_ours(&self, cluster_size: u32) {
        let options = CreateOptions::new(Version::Luks1, ours::QUICK).in_qcow2();
        let image = NewImage::new(SIZE as u64, options.layout().unwrap().header_size)
            .cluster_size(cluster_size);
        std::fs::File::create_new(&self.path).unwrap();
        let image = Qcow2::create(ours::storage(&self.path), &image).unwrap();
        let key = ours::passphrase(KEY);
        let (open, interrupt) = (OpenOptions::new(Undo::NotLookedFor), Interrupt::default());
        Container::create(image.header_storage(), options, open, &key, &interrupt).unwrap();
    }

    fn refusal(&self) -> ImageError {
        Qcow2::open(ours::storage(&self.path)).unwrap_err()
    }

    /// Changes some bytes of the image.
    fn poke(&self, offset: u64, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        let open = std::fs::File::options().write(true).open(&self.path);
        open.unwrap().write_all_at(bytes, offset).unwrap();
    }
}

/// Writes in some places of the image, and into the model, so that much stays a hole.
fn scatter(volume: &Volume, model: &mut [u8], seed: u64) {
    for step in 0..40 {
        let number = (seed * 40 + step).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let offset = usize::try_from(number % (SIZE as u64 - 70_000)).unwrap();
        let len = usize::try_from(number >> 48).unwrap()
            % [700, 9_000, 65_536][usize::try_from(step % 3).unwrap()];
        match step % 8 {
            5 => {
                let cluster = usize::try_from(number >> 40).unwrap() % 3 * 65_536;
                let range = offset as u64..(offset + cluster) as u64;
                volume.write_zeroes(range).unwrap();
                model[offset..offset + cluster].fill(0);
            }
            6 => volume.flush().unwrap(),
            _ => {
                let bytes = payload(number, len);
                volume.write_at(offset as u64, &bytes).unwrap();
                model[offset..offset + len].copy_from_slice(&bytes);
            }
        }
    }
    volume.flush().unwrap();
}

#[test]
fn what_qemu_makes_we_read_and_write() {
    for options in [
        "cluster_size=512",
        "cluster_size=4096,refcount_bits=64",
        "cluster_size=65536",
        "cluster_size=65536,compat=0.10",
        "cluster_size=65536,refcount_bits=1,lazy_refcounts=on",
        "cluster_size=16384,refcount_bits=2,preallocation=metadata",
        "cluster_size=2097152,refcount_bits=8,encrypt.cipher-alg=serpent-256",
    ] {
        let Some(image) = Image::new() else {
            return;
        };
        image.create(options);
        image.io(&[
            "write -P 90 1000k 100k",
            "write -P 33 5241856 512",
            "write -z 64k 64k",
        ]);
        let mut model = image.converted("key", None);
        let volume = image.volume(KEY);
        assert_same(&model, &ours::read_all(&volume), options);
        for seed in 0..3 {
            scatter(&volume, &mut model, seed);
        }
        assert_same(&model, &ours::read_all(&volume), options);
        drop(volume);
        image.check();
        assert_same(&model, &image.converted("key", None), options);
        image.io(&["write -P 17 123k 200k"]);
        model[123 << 10..323 << 10].fill(17);
        assert_same(&model, &ours::read_all(&image.volume(KEY)), options);
    }
}

#[test]
fn what_we_make_qemu_reads_and_writes() {
    for cluster_size in [512, 4096, 65_536, 2 << 20] {
        let Some(image) = Image::new() else {
            return;
        };
        image.create_ours(cluster_size);
        image.check();
        let mut model = vec![0; SIZE];
        assert_same(&model, &image.converted("key", None), "an empty image");
        scatter(&image.volume(KEY), &mut model, 7);
        image.check();
        assert_same(&model, &image.converted("key", None), "what we wrote");
        image.io(&["write -P 5 1000k 1M", "discard 2M 2M"]);
        model = image.converted("key", None);
        let volume = image.volume(KEY);
        assert_same(&model, &ours::read_all(&volume), "what QEMU wrote");
        volume.discard(0..1 << 20).unwrap();
        volume.write_at(300_000, b"again").unwrap();
        volume.flush().unwrap();
        model = ours::read_all(&volume);
        drop(volume);
        image.check();
        assert_same(&model, &image.converted("key", None), "after a discard");
    }
}

#[test]
fn keyslots_of_one_open_for_the_other() {
    let Some(image) = Image::new() else {
        return;
    };
    image.create("cluster_size=65536");
    image.io(&["write -P 90 0 1M"]);
    let container = || {
        let image = image.qcow2();
        Container::open(image.header_storage(), OpenOptions::new(Undo::NotLookedFor)).unwrap()
    };
    // QEMU adds a keyslot, we use it.
    let add = "encrypt.state=active,encrypt.new-secret=other,encrypt.iter-time=10";
    image.img("amend", &["--image-opts", "-o", add, &image.opts("key")]);
    let mut theirs = container();
    let unlocked = ours::unlock(&theirs, OTHER);
    assert_eq!(unlocked.slot(), Some(1));
    // We remove QEMU's keyslot and add our own, which QEMU uses.
    theirs.remove_keyslot(1, false).unwrap();
    let new = ours::passphrase(OTHER);
    theirs
        .add_keyslot(
            &unlocked,
            &ours::quick(&new, Some(5)),
            &Interrupt::default(),
        )
        .unwrap();
    drop(theirs);
    let plain = image.converted("other", None);
    assert!(plain[..1 << 20].iter().all(|byte| *byte == 90));
    image.check();
    // QEMU removes ours.
    let remove = "encrypt.state=inactive,encrypt.old-secret=other";
    image.img("amend", &["--image-opts", "-o", remove, &image.opts("key")]);
    assert_eq!(container().keyslots().len(), 1);
    assert_same(&plain, &ours::read_all(&image.volume(KEY)), "the payload");
}

#[test]
fn snapshots_stay_as_they_are() {
    let Some(image) = Image::new() else {
        return;
    };
    for cluster_size in [4096, 65_536] {
        let _ = std::fs::remove_file(&image.path);
        image.create_ours(cluster_size);
        let mut model = vec![0; SIZE];
        scatter(&image.volume(KEY), &mut model, 1);
        image.img(
            "snapshot",
            &["--image-opts", "-c", "one", &image.opts("key")],
        );
        let old = model.clone();
        let volume = image.volume(KEY);
        assert_eq!(image_snapshots(&image.path), 1);
        scatter(&volume, &mut model, 2);
        let start = (1 << 20) as u64;
        volume.discard(start..2 * start).unwrap();
        model[1 << 20..2 << 20].fill(0);
        volume.flush().unwrap();
        assert_same(&model, &ours::read_all(&volume), "the disk");
        drop(volume);
        image.check();
        assert_same(&model, &image.converted("key", None), "the disk to QEMU");
        assert_same(&old, &image.converted("key", Some("one")), "the snapshot");
        image.img(
            "snapshot",
            &["--image-opts", "-d", "one", &image.opts("key")],
        );
        image.check();
        scatter(&image.volume(KEY), &mut model, 3);
        image.check();
        assert_same(
            &model,
            &image.converted("key", None),
            "without the snapshot",
        );
    }
}

/// What the header says. No program has the image locked.
fn image_snapshots(path: &Path) -> u32 {
    let bytes = std::fs::read(path).unwrap();
    let header = luksmith_formats::image::qcow2::Header::parse(&bytes);
    header.unwrap().snapshots
}

#[test]
fn a_disk_of_another_size_is_one_for_qemu() {
    let Some(image) = Image::new() else {
        return;
    };
    image.create("cluster_size=512");
    image.io(&["write -P 90 0 5M"]);
    let volume = image.volume(KEY);
    // The L1 table moves.
    volume.resize(9 << 20).unwrap();
    volume.write_at((9 << 20) - 1000, &[7; 1000]).unwrap();
    volume.flush().unwrap();
    drop(volume);
    image.check();
    let plain = image.converted("key", None);
    assert_eq!(plain.len(), 9 << 20);
    assert!(plain[..5 << 20].iter().all(|byte| *byte == 90));
    assert!(plain[(9 << 20) - 1000..].iter().all(|byte| *byte == 7));
    image.img(
        "resize",
        &["--image-opts", "--shrink", &image.opts("key"), "4M"],
    );
    let volume = image.volume(KEY);
    assert_eq!(volume.size(), 4 << 20);
    volume.resize(3 << 20).unwrap();
    drop(volume);
    image.check();
    assert!(image.converted("key", None) == plain[..3 << 20]);
}

/// Data that compresses to less than half.
fn compressible(seed: u64) -> Vec<u8> {
    let bytes = payload(seed, SIZE);
    bytes.iter().map(|byte| b'a' + (byte & 7)).collect()
}

/// An image into which QEMU has written compressed clusters, other clusters over some of them,
/// zeroes, and data that does not compress.
fn compressed(options: &str) -> Option<Image> {
    let image = Image::new()?;
    image.create(options);
    let plain = file(image.folder.path(), "plain", &compressible(3));
    let noise = file(image.folder.path(), "noise", &payload(4, SIZE));
    let plain = format!("write -c -s {} 0 {SIZE}", plain.display());
    let noise = format!("write -c -s {} 2M 2M", noise.display());
    image.io(&[
        &plain,
        &noise,
        "write -P 33 100k 30k",
        "write -z 1M 100k",
        "discard 4M 512k",
    ]);
    image.check();
    Some(image)
}

#[test]
fn compressed_clusters_are_read_as_qemu_reads_them_and_replaced() {
    for options in [
        "cluster_size=512",
        "cluster_size=4096,refcount_bits=64,compression_type=zstd",
        "cluster_size=65536,compat=0.10",
        "cluster_size=65536,refcount_bits=1,compression_type=zstd",
        "cluster_size=2097152",
        "cluster_size=2097152,compression_type=zstd",
    ] {
        let Some(image) = compressed(options) else {
            return;
        };
        let volume = || image.volume(KEY).with_compressed_plaintext();
        let mut model = image.converted("key", None);
        assert!(model[..50 << 10] == compressible(3)[..50 << 10]);
        assert_same(&model, &ours::read_all(&volume()), options);
        let disk = volume();
        for (offset, len) in [(700, 300), (1_100_000, 200_000), (SIZE - 1000, 1000)] {
            let mut bytes = vec![0; len];
            disk.read_at(offset as u64, &mut bytes).unwrap();
            assert_same(&model[offset..offset + len], &bytes, options);
        }
        for seed in 0..2 {
            scatter(&disk, &mut model, seed);
        }
        // Whole clusters of every size.
        disk.discard(0..2 << 20).unwrap();
        disk.flush().unwrap();
        model[..2 << 20].fill(0);
        drop(disk);
        image.check();
        assert_same(&model, &image.converted("key", None), options);
        assert_same(&model, &ours::read_all(&volume()), options);
    }
}

#[test]
fn compressed_clusters_in_a_snapshot_stay_as_they_are() {
    for options in [
        "cluster_size=4096",
        "cluster_size=65536,compression_type=zstd",
    ] {
        let Some(image) = compressed(options) else {
            return;
        };
        let old = image.converted("key", None);
        let snapshot = |verb: &str| {
            image.img(
                "snapshot",
                &["--image-opts", verb, "one", &image.opts("key")],
            );
        };
        snapshot("-c");
        let mut model = old.clone();
        scatter(
            &image.volume(KEY).with_compressed_plaintext(),
            &mut model,
            1,
        );
        image.check();
        assert_same(&model, &image.converted("key", None), options);
        assert_same(&old, &image.converted("key", Some("one")), options);
        snapshot("-d");
        image.check();
        assert_same(&model, &image.converted("key", None), options);
    }
}

#[test]
fn compressed_clusters_are_refused_for_they_are_not_encrypted() {
    let Some(image) = Image::new() else {
        return;
    };
    image.create("cluster_size=65536");
    image.io(&["write -P 90 0 64k", "write -c -P 91 64k 128k"]);
    let disk = std::fs::read(&image.path).unwrap();
    let plain = [91; 65_536];
    // Compressed clusters are not encrypted: they can be read without the volume key.
    let stored = miniz_oxide::inflate::decompress_to_vec(&disk[first_compressed(&disk)..]);
    assert!(stored.unwrap() == plain);

    let volume = image.volume(KEY);
    let mut bytes = vec![0; 65_536];
    volume.read_at(0, &mut bytes).unwrap();
    for refused in [
        volume.read_at(65_000, &mut bytes),
        volume.write_at(65_537, &bytes),
    ] {
        let error = refused.unwrap_err();
        assert!(error.to_string().contains("not encrypted"), "{error}");
    }
    volume.write_at(131_072, &bytes).unwrap();
    drop(volume);
    image.check();
}

/// Where the data of the first compressed cluster begins, for clusters of 64 KiB.
fn first_compressed(disk: &[u8]) -> usize {
    let word = |at: usize| u64::from_be_bytes(*disk[at..].first_chunk().unwrap());
    let offset = |entry: u64| usize::try_from(entry & 0x00ff_ffff_ffff_fe00).unwrap();
    let l2 = offset(word(offset(word(40))));
    let entries = (l2..).step_by(8).map(word);
    let entry = entries.take(8192).find(|entry| entry & (1 << 62) != 0);
    usize::try_from(entry.unwrap() & ((1 << 54) - 1)).unwrap()
}

#[test]
fn what_is_not_in_the_image_or_not_encrypted_is_refused() {
    let Some(image) = Image::new() else {
        return;
    };
    let path = image.path.display().to_string();
    image.create("cluster_size=65536,extended_l2=on");
    assert!(
        matches!(image.refusal(), ImageError::Header(error) if error.cause.contains("extended L2"))
    );
    std::fs::remove_file(&image.path).unwrap();
    image.img("create", &["-q", "-f", "qcow2", &path, "1M"]);
    assert!(matches!(image.refusal(), ImageError::NotEncrypted));
    std::fs::remove_file(&image.path).unwrap();
    image.create_ours(65_536);
    image.img(
        "bitmap",
        &["--image-opts", "--add", &image.opts("key"), "changed"],
    );
    assert!(matches!(image.refusal(), ImageError::Bitmaps));
    image.img(
        "bitmap",
        &["--image-opts", "--remove", &image.opts("key"), "changed"],
    );
    image.qcow2();

    // The header's fields: offset, new value, and the bytes that were there.
    for (offset, bytes, good) in [
        (8, &[0, 0, 0, 0, 0, 0, 1, 0][..], &[0; 8][..]),
        (72, &[0, 0, 0, 0, 0, 0, 0, 4], &[0; 8]),
    ] {
        image.poke(offset, bytes);
        assert!(
            matches!(
                image.refusal(),
                ImageError::BackingFile | ImageError::DataFile
            ),
            "{offset}"
        );
        image.poke(offset, good);
    }
    for bit in [1, 2] {
        image.poke(79, &[bit]);
        assert!(matches!(image.refusal(), ImageError::NeedsRepair(_)));
        let read_only = luksmith::backend::file::OpenOptions::new();
        let storage = luksmith::backend::file::FileBackend::open(&image.path, read_only).unwrap();
        Qcow2::open(Arc::new(storage)).unwrap();
    }
    image.poke(79, &[0x20]);
    assert!(matches!(image.refusal(), ImageError::Header(_)));
}
