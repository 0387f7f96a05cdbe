//! Do the examples work? Each runs as it is, on its own image.

#![allow(missing_docs)]

use std::os::unix::fs::PermissionsExt;

use luksmith::secret::{Passphrase, Source};

#[allow(dead_code)] // its `main`
#[path = "../../examples/fat.rs"]
mod fat;
#[allow(dead_code)] // its `main`
#[path = "../../examples/open.rs"]
mod open;

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
    let key_file = folder.path().join("passphrase");
    std::fs::write(&key_file, "passphrase").unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let volume = open::open(&path, &Source::file(&key_file)).unwrap();
    assert_eq!(volume.size(), 8 << 20);
    let first = open::first_bytes(&volume).unwrap();
    // Every FAT begins with a jump.
    assert_eq!((first.len(), first[0]), (64, 0xeb));
    assert!(volume.write_at(0, &[0]).is_err());
    drop(volume);
    assert!(std::fs::read(&path).unwrap() == image);
}
