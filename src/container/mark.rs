//! Marks of keyslots: they show whether a keyslot is still the same, or a later one with the same
//! number.

use luksmith_formats::luks2::Kdf;
use sha2::{Digest as _, Sha256};

use super::{CommitError, Container, KeyslotError, Sealing};
use crate::backend::IoError;
use crate::door;

/// The salt of a keyslot, and the SHA-256 of its key material.
///
/// Every program that puts a passphrase into a keyslot draws a new salt of 32 random bytes, so a
/// keyslot with the same salt has the same passphrase. The key material also tells keyslots apart
/// if a program uses a salt twice. The place of the area and the cost of the KDF are not part of
/// this: a conversion moves areas and keeps the passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyslotMark {
    pub(crate) salt: Vec<u8>,
    pub(crate) material: [u8; 32],
}

impl KeyslotMark {
    /// The mark of a keyslot with this KDF, whose key material is `material`.
    pub(super) fn new(kdf: &Kdf, material: &[u8]) -> Self {
        let (Kdf::Pbkdf2 { salt, .. } | Kdf::Argon2 { salt, .. }) = kdf;
        Self {
            salt: salt.clone(),
            material: Sha256::digest(material).into(),
        }
    }
}

impl Container {
    /// The mark of a keyslot. `None` if the keyslot is not in use. All keyslots that cannot be used
    /// have the same mark, which no usable keyslot has.
    ///
    /// # Errors
    /// Returns an error of the storage.
    pub fn keyslot_mark(&self, slot: u32) -> Result<Option<KeyslotMark>, IoError> {
        let Some(keyslot) = self.keyslot(slot) else {
            return Ok(None);
        };
        let Ok(Sealing { kdf, stripes, .. }) = &keyslot.sealing else {
            return Ok(Some(KeyslotMark {
                salt: Vec::new(),
                material: Sha256::digest([]).into(),
            }));
        };
        let length = keyslot.key_size.saturating_mul(*stripes as usize);
        let material = door::read(&*self.storage, keyslot.area.start, length)?;
        Ok(Some(KeyslotMark::new(kdf, &material)))
    }

    /// Checks that a keyslot is still the one with this mark. The change that follows fails if the
    /// header on the storage is not the one that is looked at here.
    pub(super) fn check_mark(&self, slot: u32, mark: &KeyslotMark) -> Result<(), KeyslotError> {
        match self.keyslot_mark(slot).map_err(CommitError::from)? {
            None => Err(KeyslotError::NotInUse(slot)),
            Some(found) if found == *mark => Ok(()),
            Some(_) => Err(KeyslotError::Replaced(slot)),
        }
    }
}
