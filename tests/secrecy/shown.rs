//! No secret is in `Debug` output, in errors, or in a file that other users can read.

use std::fmt::Debug;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{Container, OpenOptions, Undo, UndoFile, UndoStore, Version, Which};
use luksmith::crypt::SectorCrypt;
use luksmith::secret::{Passphrase, VolumeKey};
use luksmith_formats::CipherSpec;

use crate::sample::{PBKDF2, copy, create, new_keyslot, options};

/// Readable text, so that the tests can look for every usual way to print bytes.
const PASSPHRASE: &[u8] = b"correct horse battery staple";
const KEY: &[u8; 64] = b"the volume key of this test, 64 bytes that can be read by people";

fn ways_to_show(secret: &[u8]) -> Vec<String> {
    let part = &secret[..8];
    let list = |form: fn(&u8) -> String| part.iter().map(form).collect::<Vec<_>>();
    vec![
        String::from_utf8(part.to_vec()).unwrap(),
        list(|byte| format!("{byte:02x}")).concat(),
        list(|byte| format!("{byte:02X}")).concat(),
        list(|byte| format!("{byte:02x}")).join(" "),
        list(|byte| format!("{byte:#04x}")).join(", "),
        list(u8::to_string).join(", "),
        list(u8::to_string).join(",\n    "),
        base64_of(&part[..6]),
    ]
}

fn base64_of(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let sextets = (0..bits.len()).step_by(6).map(|at| &bits[at..at + 6]);
    sextets
        .map(|bits| char::from(LETTERS[usize::from_str_radix(bits, 2).unwrap()]))
        .collect()
}

fn shown(value: &impl Debug) -> String {
    format!("{value:?}\n{value:#?}")
}

fn shown_error(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error:?} {error:#?}");
    let mut next = Some(error);
    while let Some(error) = next {
        text += &format!(" {error}");
        next = error.source();
    }
    text
}

fn assert_shows_nothing(text: &str) {
    for secret in [PASSPHRASE, KEY, &KEY[32..]] {
        for way in ways_to_show(secret) {
            assert!(!text.contains(&way), "{way:?} in {text}");
        }
    }
}

#[test]
fn no_secret_is_in_debug_or_in_an_error() {
    for version in [Version::Luks1, Version::Luks2] {
        let storage = Arc::new(MemoryBackend::new(4 << 20));
        let made = options(version, PBKDF2, "aes-xts-plain64", KEY);
        let (mut container, unlocked) = create(
            storage.clone(),
            made,
            OpenOptions::new(Undo::NotLookedFor),
            PASSPHRASE,
        );
        let volume = container.volume(storage.clone(), &unlocked).unwrap();
        let passphrase = Passphrase::from_locked(copy(PASSPHRASE));
        let key = || VolumeKey::from_locked(copy(KEY));
        let cipher = CipherSpec::AES_XTS_PLAIN64;
        for text in [
            shown(&container),
            shown(&unlocked),
            shown(&volume),
            shown(&passphrase),
            shown(&key()),
            shown(&container.keyslots()),
            shown(&SectorCrypt::new(cipher, 512, &key()).unwrap()),
            shown(&volume.read_sectors(0, 512).unwrap()),
            shown(&copy(KEY)),
        ] {
            assert_shows_nothing(&text);
        }

        let interrupt = Interrupt::new();
        let stopped = Interrupt::new();
        stopped.trigger();
        let new = new_keyslot(&passphrase, PBKDF2).slot(0);
        let in_use = container.add_keyslot(&unlocked, &new, &interrupt);
        assert_shows_nothing(&shown_error(&in_use.unwrap_err()));
        let interrupted = container.unlock(&passphrase, Which::Any, &stopped);
        assert_shows_nothing(&shown_error(&interrupted.unwrap_err()));
        let other = Passphrase::copy_from(&PASSPHRASE[1..]).unwrap();
        let wrong = container.unlock(&other, Which::Any, &interrupt);
        assert_shows_nothing(&shown_error(&wrong.unwrap_err()));
        let short = VolumeKey::copy_from(&KEY[..32]).unwrap();
        let wrong = container.unlock_with_key(short, &interrupt);
        assert_shows_nothing(&shown_error(&wrong.unwrap_err()));
        let odd = VolumeKey::copy_from(&KEY[..33]).unwrap();
        let refused = SectorCrypt::new(cipher, 512, &odd);
        assert_shows_nothing(&shown_error(&refused.unwrap_err()));
        let mut made = options(version, PBKDF2, "aes-xts-plain64", KEY);
        made.volume_key = Some(VolumeKey::copy_from(&KEY[..40]).unwrap());
        let refused = Container::create(
            storage,
            made,
            OpenOptions::new(Undo::NotLookedFor),
            &passphrase,
            &interrupt,
        );
        assert_shows_nothing(&shown_error(&refused.unwrap_err()));
    }
}

/// Positive control: every way of printing a secret is found.
#[test]
#[should_panic(expected = "99, 111, 114, 114, 101, 99, 116, 32")]
fn a_secret_that_is_shown_is_found() {
    assert_shows_nothing(&format!("{PASSPHRASE:?}"));
}

#[test]
fn an_undo_record_is_private_whatever_was_there_before() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let undo = UndoFile::beside(&image);
    let mode = || {
        let path = folder.path().join("image.luksmith-undo");
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    undo.save(b"record").unwrap();
    assert_eq!(mode(), 0o600);

    // A record, and a file of the user's own beside it, which every user can read.
    let readable = std::fs::Permissions::from_mode(0o666);
    let new = folder.path().join("image.luksmith-undo.new");
    std::fs::write(&new, b"the user's").unwrap();
    std::fs::set_permissions(&new, readable.clone()).unwrap();
    let record = folder.path().join("image.luksmith-undo");
    std::fs::set_permissions(record, readable).unwrap();
    undo.save(b"another").unwrap();
    assert_eq!(mode(), 0o600);
    assert_eq!(std::fs::read(&new).unwrap(), b"the user's");
    assert_eq!(undo.load().unwrap().unwrap(), b"another");
}

#[test]
fn an_undo_record_follows_no_link() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("somewhere else");
    std::fs::write(&target, b"untouched").unwrap();
    for name in ["image.luksmith-undo", "image.luksmith-undo.new"] {
        std::os::unix::fs::symlink(&target, folder.path().join(name)).unwrap();
    }
    let undo = UndoFile::beside(&folder.path().join("image"));
    undo.save(b"record").unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"untouched");
    assert_eq!(undo.load().unwrap().unwrap(), b"record");
}
