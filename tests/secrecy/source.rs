//! A secret that was read from a file or a descriptor and dropped is gone from memory.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};

use luksmith::Interrupt;
use luksmith::secret::{
    Expected, Helper, HelperFolders, KeyStore, MAX_KEY_FILE, Passphrase, Purpose, SecretSource,
    Source,
};

#[path = "../../src/cli/strength.rs"]
mod strength;

use crate::scan::{Needle, fresh};

/// A file with a fresh secret, of which no other copy exists. The needle is the end of the secret.
fn key_file(len: usize) -> (tempfile::NamedTempFile, Needle) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let secret = fresh(len);
    file.as_file().write_all_at(&secret, 0).unwrap();
    (file, Needle::of(&secret[len - 32..]))
}

fn read(source: &Source) -> Passphrase {
    let interrupt = Interrupt::new();
    source
        .read(Purpose::unlock("a volume", &interrupt))
        .unwrap()
}

#[test]
fn a_key_file_is_gone_after_use() {
    for len in [32, 3000, 70_000] {
        let (file, needle) = key_file(len);
        let passphrase = read(&Source::file(file.path()));
        assert_eq!(passphrase.as_bytes().len(), len);
        assert!(!needle.find().is_empty());
        drop(passphrase);
        needle.assert_gone("the key file");
    }
}

#[test]
fn a_descriptor_of_unknown_length_is_gone_after_use() {
    let (file, needle) = key_file(5000);
    let open = File::open(file.path()).unwrap();
    let passphrase = read(&Source::Fd(open.as_raw_fd()));
    assert_eq!(passphrase.as_bytes().len(), 5000);
    drop(passphrase);
    needle.assert_gone("what the descriptor gave");
}

/// The kernel's pipe is not ours to search: what luksmith itself keeps is.
#[test]
fn what_a_program_printed_is_gone_after_use() {
    for len in [32, 70_000] {
        let (file, needle) = key_file(len);
        let helper = Helper::new("/bin/cat").argument(file.path());
        let printed = helper.run(MAX_KEY_FILE, &Interrupt::new()).unwrap();
        assert_eq!(printed.len(), len);
        assert!(!needle.find().is_empty());
        drop(printed);
        needle.assert_gone("the output of a program");
    }
}

#[test]
fn what_a_failed_program_printed_is_gone() {
    let (file, needle) = key_file(70_000);
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    let script = format!("#!/bin/sh\ncat {}\nexit 3\n", file.path().display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let interrupt = Interrupt::new();
    let purpose = Purpose::unlock("a volume", &interrupt);
    assert!(Source::Command(program).read(purpose).is_err());
    needle.assert_gone("the output of a failed program");
}

/// A helper keeps the value in the file `value` of its folder.
#[test]
fn what_a_key_store_took_and_gave_is_gone_after_use() {
    for len in [32, 70_000] {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("key-test");
        let value = folder.path().join("value");
        let value = value.display();
        let script = format!(
            "#!/bin/sh\ncase $1 in get) cat {value} >&3 ;; store) cat <&3 >{value} ;; esac\n"
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let folders = HelperFolders::new().also(folder.path());
        let store = KeyStore::new("test:x".parse().unwrap(), folders);

        let secret = fresh(len);
        let needle = Needle::of(&secret[len - 32..]);
        let secret = Passphrase::from_locked(secret);
        let interrupt = Interrupt::new();
        let stored = store.store(&secret, Expected::Nothing, None, &interrupt);
        let stored = stored.unwrap();
        assert!(stored.passphrase.ct_eq(&secret));
        drop((stored, secret));
        needle.assert_gone("what a key store took");
        let read = store.get(None, &interrupt).unwrap();
        assert!(!needle.find().is_empty());
        assert!(!format!("{read:?}").contains(&format!("{:?}", read.passphrase.as_bytes())));
        drop(read);
        needle.assert_gone("what a key store gave");
    }
}

#[test]
fn an_estimate_of_the_strength_leaves_nothing() {
    let mut typed = fresh(40);
    for byte in typed.iter_mut() {
        *byte = b'a' + *byte % 26;
    }
    let needle = Needle::of(&typed);
    let passphrase = Passphrase::from_locked(typed);
    assert!(strength::strength(&passphrase).is_some());
    drop(passphrase);
    needle.assert_gone("the passphrase");
}

#[test]
fn neither_debug_nor_errors_show_a_secret() {
    let secret = Passphrase::copy_from(b"correct horse").unwrap();
    assert!(!format!("{secret:?}").contains("horse"));
    // A passphrase that was given in place of a source is not repeated in an error.
    let error = "correct horse".parse::<Source>().unwrap_err();
    assert!(!format!("{error:?} {error}").contains("horse"));
}

#[test]
fn a_temporary_key_file_of_these_tests_is_private() {
    let (file, _) = key_file(32);
    let mode = file.as_file().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}
