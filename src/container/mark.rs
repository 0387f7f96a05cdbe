//! Marks of keyslots: they show whether a keyslot is still the same, or a later one with the same
//! number.

use luksmith_formats::luks2::Kdf;
use sha2::{Digest as _, Sha256};

use super::{Container, Sealing};
use crate::backend::IoError;
use crate::door;

/// The salt of a keyslot, and the SHA-256 of its key material.
///
/// Every program that puts a passphrase into a keyslot draws a new salt of 32 random bytes, so a
/// keyslot with the same salt has the same passphrase. The key material also tells keyslots apart
/// if a program uses a salt twice. The place of the area and the cost of the KDF are not part of
/// this: a conversion moves areas and keeps the passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyslotMark {
    pub(crate) salt: Vec<u8>,
    pub(crate) material: [u8; 32],
}

impl Container {
    /// The mark of a keyslot. `None` if the keyslot is not in use. A keyslot that cannot be used
    /// has a mark that no usable keyslot has.
    pub(crate) fn keyslot_mark(&self, slot: u32) -> Result<Option<KeyslotMark>, IoError> {
        let Some(keyslot) = self.keyslot(slot) else {
            return Ok(None);
        };
        let (salt, length) = match keyslot.sealing {
            Ok(Sealing { kdf, stripes, .. }) => {
                let (Kdf::Pbkdf2 { salt, .. } | Kdf::Argon2 { salt, .. }) = kdf;
                (salt, keyslot.key_size.saturating_mul(stripes as usize))
            }
            Err(_) => (Vec::new(), 0),
        };
        let material = door::read(&*self.storage, keyslot.area.start, length)?;
        Ok(Some(KeyslotMark {
            salt,
            material: Sha256::digest(material).into(),
        }))
    }
}
