//! The library on image files, with key derivation at its lowest cost.

use crate::payload::assert_same;
use luksmith::Interrupt;
use luksmith::backend::Backend;
use luksmith::backend::file::{FileBackend, OpenOptions as FileOptions};
use luksmith::container::{
    Container, CreateOptions, NewKeyslot, OpenOptions, UndoFile, Unlocked, Which,
};
use luksmith::kdf::Argon2Cost;
use luksmith::kdf::calibrate::Cost;
use luksmith::secret::Passphrase;
use luksmith::volume::Volume;
use luksmith_formats::luks2::{self, Argon2Variant, Position};
use luksmith_formats::{Hash, Limits};
use std::path::Path;
use std::sync::Arc;

/// PBKDF2 at its lowest cost.
pub(crate) const QUICK: Cost = Cost::Pbkdf2 {
    hash: Hash::Sha256,
    iterations: 1000,
};

/// Argon2 at its lowest cost.
pub(crate) fn quick_argon2(variant: Argon2Variant) -> Cost {
    Cost::Argon2(Argon2Cost {
        variant,
        passes: 4,
        memory_kib: 32,
        lanes: 1,
    })
}

pub(crate) fn passphrase(bytes: &[u8]) -> Passphrase {
    Passphrase::copy_from(bytes).expect("locked memory")
}

/// The file, opened for writing, and locked while this lives.
pub(crate) fn storage(image: &Path) -> Arc<dyn Backend> {
    let options = FileOptions::new().write(true);
    Arc::new(FileBackend::open(image, options).expect("no other program has the image"))
}

pub(crate) fn options(image: &Path) -> OpenOptions {
    OpenOptions::new(UndoFile::beside(image).into())
}

/// The header in the file, opened and locked.
pub(crate) fn open(header: &Path) -> Container {
    Container::open(storage(header), options(header))
        .unwrap_or_else(|error| panic!("{}: {error:?}", header.display()))
}

pub(crate) fn unlock(container: &Container, key: &[u8]) -> Unlocked {
    container
        .unlock(&passphrase(key), Which::Any, &Interrupt::default())
        .expect("the key opens a keyslot")
}

/// The keyslot that `key` opens.
///
/// # Panics
///
/// If the answer is neither a keyslot nor a wrong passphrase.
pub(crate) fn slot_of(header: &Path, key: &[u8]) -> Option<u32> {
    use luksmith::container::UnlockError;
    match open(header).unlock(&passphrase(key), Which::Any, &Interrupt::default()) {
        Ok(unlocked) => unlocked.slot(),
        Err(UnlockError::WrongPassphrase | UnlockError::NoKeyslots) => None,
        Err(error) => panic!("{}: {error:?}", header.display()),
    }
}

/// Makes a volume whose header is in the file `header`, which exists and has its full size.
pub(crate) fn create(header: &Path, key: &[u8], options: CreateOptions) -> (Container, Unlocked) {
    Container::create(
        storage(header),
        options,
        self::options(header),
        &passphrase(key),
        &Interrupt::default(),
    )
    .unwrap_or_else(|error| panic!("{}: {error:?}", header.display()))
}

pub(crate) fn add_keyslot(header: &Path, key: &[u8], new: &[u8], slot: Option<u32>) -> u32 {
    let mut container = open(header);
    let unlocked = unlock(&container, key);
    let new = &passphrase(new);
    container
        .add_keyslot(&unlocked, &quick(new, slot), &Interrupt::default())
        .expect("there is room for a keyslot")
}

pub(crate) fn change_keyslot(header: &Path, key: &[u8], new: &[u8], slot: Option<u32>) -> u32 {
    let mut container = open(header);
    let unlocked = unlock(&container, key);
    let new = &passphrase(new);
    container
        .change_keyslot(&unlocked, &quick(new, slot), &Interrupt::default())
        .expect("the keyslot can be changed")
}

/// A keyslot at the lowest cost.
pub(crate) fn quick(passphrase: &Passphrase, slot: Option<u32>) -> NewKeyslot<'_> {
    NewKeyslot::new(passphrase, QUICK).slot(slot)
}

/// The plaintext device of an image whose header is in the file `header`, or in the image.
pub(crate) fn volume(image: &Path, header: Option<&Path>, key: &[u8]) -> Volume {
    let data = storage(image);
    let container = match header {
        Some(header) => open(header),
        None => Container::open(Arc::clone(&data), options(image))
            .unwrap_or_else(|error| panic!("{}: {error:?}", image.display())),
    };
    let unlocked = unlock(&container, key);
    container
        .volume(data, &unlocked)
        .expect("the image holds the volume")
}

/// The whole payload.
pub(crate) fn read_all(volume: &Volume) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(volume.size()).expect("a small image")];
    volume.read_at(0, &mut bytes).expect("the image is read");
    bytes
}

/// Writes the whole payload in pieces that are not aligned to sectors.
pub(crate) fn write_all(volume: &Volume, payload: &[u8]) {
    assert_eq!(volume.size(), payload.len() as u64, "the payload's size");
    let mut offset = 0;
    for piece in payload.chunks(40_007) {
        volume
            .write_at(offset, piece)
            .expect("the image is written");
        offset += piece.len() as u64;
    }
    volume.flush().expect("the image is synced");
    assert_same(payload, &read_all(volume), "what was just written");
}

/// Changes both copies of a LUKS2 header in a way that no command offers, with valid checksums.
pub(crate) fn edit_luks2(image: &Path, change: impl FnOnce(&mut luks2::Header)) {
    let mut bytes = std::fs::read(image).expect("the image is read");
    let mut header = luks2::Header::parse(
        &bytes[..size_of_copy(&bytes)],
        Position::Primary,
        &Limits::default(),
    )
    .expect("the primary copy is valid");
    change(&mut header);
    for position in Position::ALL {
        let copy = header.to_bytes(position, &[7; 64]).expect("it fits");
        let at = usize::try_from(position.offset(header.hdr_size)).expect("a small image");
        bytes[at..at + copy.len()].copy_from_slice(&copy);
    }
    std::fs::write(image, bytes).expect("the image is written");
}

fn size_of_copy(image: &[u8]) -> usize {
    let size = luks2::Header::probe_size(&image[..4096], Position::Primary);
    usize::try_from(size.expect("a LUKS2 header")).expect("a small image")
}
