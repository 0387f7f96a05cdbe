//! Volumes in partitions: util-linux and the kernel agree on where a partition is, and cryptsetup
//! and QEMU on what is in it.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{Configure, Version, Which};
use luksmith::location::{Location, Part};
use luksmith::partition::Disk;
use luksmith::secret::Passphrase;
use luksmith::task::new_volume::{Extent, NewVolume};
use luksmith::task::open::Image;
use luksmith::task::plain::{PlainAccess, PlainSource};
use luksmith::task::{Silent, copy};
use luksmith::uuid::Uuid;
use luksmith_formats::Limits;
use support::loop_device::LoopDevice;
use support::partitions::{chain, gpt, mbr};
use support::peers;

use crate::cryptsetup::{Cryptsetup, QUICK_PBKDF2};
use crate::payload::{assert_same, payload};

const SECTORS: usize = 16384;

/// Disks with tables of each kind, and the numbers of their partitions.
fn disks() -> [(&'static str, Vec<u8>, Vec<u32>); 3] {
    let blank = || vec![0; SECTORS * 512];
    let mut with_gpt = blank();
    gpt(
        &mut with_gpt,
        512,
        &[
            (1, 2048..4096),
            (3, 4096..4097),
            (7, 4100..16350),
            (128, 40..41),
        ],
    );
    let mut with_mbr = blank();
    mbr(
        &mut with_mbr,
        &[
            (1, 0x83, 1..100),
            (2, 0x07, 100..101),
            (4, 0x0c, 200..16384),
        ],
    );
    let mut with_chain = blank();
    mbr(
        &mut with_chain,
        &[
            (1, 0x83, 63..163),
            (3, 0x0f, 200..10000),
            (4, 0x83, 10000..10100),
        ],
    );
    let tables = [
        (200, 263..1000),
        (5000, 5001..6000),
        (2000, 2048..2049),
        (7000, 7063..10000),
    ];
    chain(&mut with_chain, 512, 200, &tables);
    [
        ("gpt", with_gpt, vec![1, 3, 7, 128]),
        ("mbr", with_mbr, vec![1, 2, 4]),
        ("logical", with_chain, vec![1, 4, 5, 6, 7, 8]),
    ]
}

/// The sectors of each partition, by our own reader.
fn ours(image: &[u8], sector: u32, numbers: &[u32]) -> Vec<(u32, Range<u64>)> {
    let storage = MemoryBackend::from_bytes(image.to_vec());
    let disk = Disk::of(&storage).with_sector_size(sector);
    let unit = 512;
    numbers
        .iter()
        .map(|number| {
            let bytes = disk.partition(*number).unwrap();
            (*number, bytes.start / unit..bytes.end / unit)
        })
        .collect()
}

#[test]
fn util_linux_has_the_same_partitions() {
    let Some(partx) = peers::find("partx") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    for (name, bytes, numbers) in disks() {
        std::fs::write(&image, &bytes).unwrap();
        let mut command = Command::new(&partx);
        command.args(["--noheadings", "--raw", "--output", "NR,START,SECTORS"]);
        let shown = String::from_utf8(peers::run(command.arg(&image))).unwrap();
        let theirs = shown.lines().map(|line| {
            let numbers: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
            let [number, start, sectors] = numbers[..] else {
                panic!("{line}");
            };
            (u32::try_from(number).unwrap(), start..start + sectors)
        });
        // It also shows the extended partition, as far as the boot loader in it.
        let theirs: Vec<_> = theirs
            .filter(|(number, _)| numbers.contains(number))
            .collect();
        assert_eq!(ours(&bytes, 512, &numbers), theirs, "{name}");
    }
}

/// A loop device whose partitions the kernel has read.
fn attach(image: &Path, sector: &str) -> Option<LoopDevice> {
    let attached = LoopDevice::attach(image, &["--partscan", "--sector-size", sector]);
    if attached.is_none() {
        peers::skip("no loop device can be attached");
    }
    attached
}

/// The partitions that the kernel has, in sectors of 512 bytes.
fn partitions(device: &LoopDevice) -> Vec<(u32, Range<u64>)> {
    let name = device.path().file_name().unwrap();
    let folder = std::fs::read_dir(Path::new("/sys/block").join(name)).unwrap();
    let mut found: Vec<_> = folder
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let read = |name: &str| std::fs::read_to_string(path.join(name)).ok();
            let number = read("partition")?.trim().parse().unwrap();
            let field = |name| read(name).unwrap().trim().parse::<u64>().unwrap();
            Some((number, field("start")..field("start") + field("size")))
        })
        .collect();
    found.sort_unstable_by_key(|(number, _)| *number);
    found
}

#[test]
#[allow(
    clippy::print_stderr,
    reason = "the reader of a test run is told what did not run"
)]
fn the_kernel_has_the_same_partitions() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    let mut large = vec![0; 256 * 4096];
    gpt(&mut large, 4096, &[(1, 6..100), (2, 100..250)]);
    let all = disks().map(|(name, bytes, numbers)| (name, bytes, numbers, 512));
    for (name, bytes, numbers, sector) in
        all.into_iter()
            .chain([("gpt with sectors of 4096 bytes", large, vec![1, 2], 4096)])
    {
        std::fs::write(&image, &bytes).unwrap();
        let Some(device) = attach(&image, &sector.to_string()) else {
            return;
        };
        let theirs = partitions(&device);
        if theirs.is_empty() {
            // No package brings another kernel here, so it is not a missing peer.
            eprintln!("skipped: this kernel reads no partition tables");
            return;
        }
        let theirs: Vec<_> = theirs
            .into_iter()
            .filter(|(number, _)| numbers.contains(number))
            .collect();
        assert_eq!(ours(&bytes, sector, &numbers), theirs, "{name}");
        // The device of the partition is the one to use.
        let location = Location::part_of(
            Location::Path(device.path().into()),
            Part::Partition(numbers[0]),
        );
        let open = Image::new(location).open_to_read(
            Default::default(),
            Limits::default(),
            &Silent::default(),
        );
        let error = open.err().unwrap().line();
        assert!(error.contains("as a device of its own"), "{name}: {error}");
    }
}

/// cryptsetup makes a volume in the bytes of a partition, and opens the one that we make there.
#[test]
fn cryptsetup_and_qemu_read_what_is_in_a_partition() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (_, mut bytes, _) = disks().into_iter().next().unwrap();
    let range = 4100 * 512..16350 * 512;
    for (at, byte) in bytes.iter_mut().enumerate().skip(64 << 10) {
        if at < SECTORS * 512 - (64 << 10) && !range.contains(&at) {
            *byte = 0x5a;
        }
    }
    std::fs::write(path("key"), "secret").unwrap();
    let part = Part::Partition(7);
    let location = Location::part_of(Location::Path(path("disk.img")), part);
    let watch = Silent::default();
    let passphrase = || Passphrase::copy_from(b"secret").unwrap();
    let outside = |now: &[u8], what: &str| {
        assert_same(&now[..range.start], &bytes[..range.start], what);
        assert_same(&now[range.end..], &bytes[range.end..], what);
    };

    if let Some(cryptsetup) = Cryptsetup::find() {
        std::fs::write(path("volume"), vec![0; range.len()]).unwrap();
        let kinds: &[&[&str]] = &[QUICK_PBKDF2, &["--type", "luks1"]];
        cryptsetup.format(&path("volume"), &path("key"), kinds);
        let mut disk = bytes.clone();
        disk[range.clone()].copy_from_slice(&std::fs::read(path("volume")).unwrap());
        std::fs::write(path("disk.img"), &disk).unwrap();
        let image = Image::new(location.clone());
        let mut container = image
            .open_to_write(None, Limits::default(), &watch)
            .unwrap();
        container
            .unlock(&passphrase(), Which::Any, &Interrupt::new())
            .unwrap();
        let uuid = Uuid::from_u128(14);
        container.configure(&Configure::new().uuid(uuid)).unwrap();
        drop(container);
        let disk = std::fs::read(path("disk.img")).unwrap();
        outside(&disk, "a volume of cryptsetup");
        std::fs::write(path("volume"), &disk[range.clone()]).unwrap();
        let dump = cryptsetup.dump(&path("volume"));
        assert!(dump.contains(&uuid.to_string()), "{dump}");
    }

    std::fs::write(path("disk.img"), &bytes).unwrap();
    std::fs::write(path("plain"), payload(14, 3 << 20)).unwrap();
    let mut new = NewVolume::default();
    new.version = Some(Version::Luks1);
    new.cost.iterations = Some(1000);
    let mut source = PlainSource::at(
        &Location::Path(path("plain")),
        PlainAccess::default(),
        &location,
        &watch,
    )
    .unwrap();
    let plan = copy::plan_encrypt(&source, new, &location, Extent::AtLeast(3 << 20)).unwrap();
    let made = plan.make(&passphrase(), &watch).unwrap();
    copy::encrypt(&made.volume().unwrap(), made.fill(), &mut source, &watch).unwrap();
    made.keep().unwrap();
    let disk = std::fs::read(path("disk.img")).unwrap();
    outside(&disk, "our volume");
    if let Some(cryptsetup) = Cryptsetup::find() {
        std::fs::write(path("volume"), &disk[range.clone()]).unwrap();
        let slot = cryptsetup.slot_of(&path("volume"), &path("key"), &[]);
        assert_eq!(slot, Some(0));
    }
    let Some(qemu_img) = peers::find("qemu-img") else {
        return;
    };
    let mut command = Command::new(qemu_img);
    command
        .arg("convert")
        .arg("--object")
        .arg(format!("secret,id=key,file={}", path("key").display()));
    command.arg("--image-opts").arg(format!(
        "driver=luks,key-secret=key,file.driver=raw,file.offset={},file.size={},\
         file.file.driver=file,file.file.filename={}",
        range.start,
        range.len(),
        path("disk.img").display()
    ));
    command.args(["-O", "raw"]).arg(path("theirs"));
    peers::run(&mut command);
    let theirs = std::fs::read(path("theirs")).unwrap();
    assert_same(&theirs[..3 << 20], &payload(14, 3 << 20), "what QEMU reads");
}
