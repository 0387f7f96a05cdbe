//! Do the examples work? Each runs as it is, on its own image.

#![allow(missing_docs)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use luksmith::backend::conformance::{self, Clause};
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::Which;
use luksmith::formats::Limits;
use luksmith::location::Location;
use luksmith::secret::{Passphrase, Source};
use luksmith::task::cost::CostOptions;
use luksmith::task::open::Image;
use luksmith::task::{Kind, Silent, Watch};
use partition::Partition;

#[allow(dead_code)] // its `main`
#[path = "../../examples/encrypt.rs"]
mod encrypt;
#[allow(dead_code)] // its `main`
#[path = "../../examples/fat.rs"]
mod fat;
#[allow(dead_code)] // its `main`
#[path = "../../examples/keyslots.rs"]
mod keyslots;
#[allow(dead_code)] // its `main`
#[path = "../../examples/open.rs"]
mod open;
#[allow(dead_code)] // its `main`
#[path = "../../examples/partition.rs"]
mod partition;
#[allow(dead_code)] // its `main`
#[path = "../../examples/serve_socket.rs"]
mod serve_socket;
#[allow(dead_code)] // its `main`
#[path = "../../examples/serve_tls.rs"]
mod serve_tls;
mod serving;

/// A file with the passphrase `passphrase`, for its owner only.
fn key_file(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("passphrase");
    std::fs::write(&path, "passphrase").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn a_filesystem_on_a_volume_is_made_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fat.luks");
    let passphrase = Passphrase::copy_from(b"passphrase").unwrap();
    fat::make(&path, &passphrase).unwrap();
    assert_eq!(
        fat::read_back(&path, &passphrase).unwrap(),
        "hello from inside"
    );
    assert!(fat::make(&path, &passphrase).is_err(), "it exists already");
    let other = Passphrase::copy_from(b"another").unwrap();
    assert!(fat::read_back(&path, &other).is_err());

    let image = std::fs::read(&path).unwrap();
    assert!(!image.windows(17).any(|piece| piece == b"hello from inside"));

    // The other example opens this volume, and writes nothing.
    let volume = open::open(&path, &Source::file(key_file(&folder))).unwrap();
    assert_eq!(volume.size(), 8 << 20);
    let first = open::first_bytes(&volume).unwrap();
    // Every FAT begins with a jump.
    assert_eq!((first.len(), first[0]), (64, 0xeb));
    assert!(volume.write_at(0, &[0]).is_err());
    drop(volume);
    assert!(std::fs::read(&path).unwrap() == image);
}

#[test]
fn keyslots_are_listed_added_changed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fat.luks");
    let passphrase = |text: &str| Passphrase::copy_from(text.as_bytes()).unwrap();
    fat::make(&path, &passphrase("first")).unwrap();
    let watch = Silent::default();
    let mut cost = CostOptions::default();
    (cost.iterations, cost.memory_kib) = (Some(4), Some(1024));
    let open = || {
        let image = Image::new(Location::Path(path.clone()));
        image
            .open_to_write(None, Limits::default(), &watch)
            .unwrap()
    };
    let run = |command: &[&str], old: &str, new: &str| {
        let (old, new) = (|| Ok(passphrase(old)), || Ok(passphrase(new)));
        keyslots::run(&mut open(), command, [&old, &new], &cost, &watch)
            .map_err(|error| error.to_string())
    };
    let opens = |text: &str| {
        let unlocked = open().unlock(&passphrase(text), Which::Any, watch.interrupt());
        unlocked.ok().and_then(|unlocked| unlocked.slot())
    };

    assert_eq!(run(&["add"], "first", "second").unwrap(), "keyslot 1");
    assert_eq!((opens("first"), opens("second")), (Some(0), Some(1)));
    assert_eq!(run(&["change"], "first", "third").unwrap(), "keyslot 0");
    assert_eq!((opens("first"), opens("third")), (None, Some(0)));
    assert_eq!(run(&["remove", "1"], "", "").unwrap(), "keyslot 1");
    assert_eq!(opens("second"), None);
    let last = run(&["remove", "0"], "", "").unwrap_err();
    assert!(last.contains("last one"), "{last}");
    let listed = run(&["list"], "", "").unwrap();
    assert_eq!(listed.matches("slot: ").count(), 1, "{listed}");
    assert!(run(&["add"], "first", "other").is_err());
}

#[test]
fn a_backend_of_ones_own_keeps_the_contract() {
    let disk = MemoryBackend::new(4 << 20).with_block_size(512);
    let report = conformance::check(|_| {
        let (start, size) = (1 << 20, 2 << 20);
        let disk = &disk;
        Ok(Box::new(Partition { disk, start, size }))
    });
    let report = report.unwrap_or_else(|violation| panic!("{violation}"));
    let skipped: Vec<_> = report.skipped().iter().map(|(clause, _)| *clause).collect();
    assert_eq!(skipped, [Clause::Resize, Clause::ReadOnly]);
    // The rest of the disk is untouched.
    let bytes = disk.to_bytes();
    let rest = bytes[..1 << 20].iter().chain(&bytes[3 << 20..]);
    assert!(rest.into_iter().all(|byte| *byte == 0));
}

#[test]
fn a_plain_image_is_encrypted_with_progress() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, path) = (
        folder.path().join("plain.img"),
        folder.path().join("disk.luks"),
    );
    let bytes: Vec<u8> = (0..3 << 20)
        .map(|at: u32| (at >> 9).to_le_bytes()[0])
        .collect();
    std::fs::write(&plain, &bytes).unwrap();
    let image = Location::Path(path.clone());
    let passphrase = Passphrase::copy_from(b"passphrase").unwrap();
    let watch = encrypt::Progress::default();
    encrypt::encrypt(&plain, &image, &passphrase, &watch).unwrap();
    assert_eq!(watch.1.load(Ordering::Relaxed), bytes.len() as u64);

    let key_file = folder.path().join("passphrase");
    std::fs::write(&key_file, "passphrase").unwrap();
    let volume = open::open(&path, &Source::file(&key_file)).unwrap();
    assert_eq!(volume.size(), bytes.len() as u64);
    let mut read = vec![0; bytes.len()];
    volume.read_at(0, &mut read).unwrap();
    assert!(read == bytes, "the volume holds something else");
    drop(volume);

    // An existing file is not overwritten, and an interrupted run leaves no file.
    let again = encrypt::encrypt(&plain, &image, &passphrase, &watch).unwrap_err();
    assert_eq!(again.kind(), Kind::Exists);
    watch.0.trigger();
    let other = Location::Path(folder.path().join("other.luks"));
    let stopped = encrypt::encrypt(&plain, &other, &passphrase, &watch).unwrap_err();
    assert_eq!(stopped.kind(), Kind::Interrupted);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
}
