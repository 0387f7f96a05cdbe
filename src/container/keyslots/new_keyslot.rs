//! The parameters of a new keyslot.

use luksmith_formats::json::Value;
use luksmith_formats::luks2::{Kdf, Priority};

use crate::container::KeyslotError;
use crate::kdf::calibrate::Cost;
use crate::secret::{self, Passphrase};

/// The parameters of a new keyslot.
pub struct NewKeyslot<'a> {
    pub(in crate::container) passphrase: &'a Passphrase,
    pub(super) slot: Option<u32>,
    pub(super) kdf: Cost,
    pub(super) priority: Priority,
    pub(super) token: Option<Value>,
    salt: Option<Vec<u8>>,
}

impl<'a> NewKeyslot<'a> {
    /// A keyslot that `passphrase` opens, with the cost `kdf`, normal priority, and the lowest free
    /// number.
    #[must_use]
    pub fn new(passphrase: &'a Passphrase, kdf: Cost) -> Self {
        Self {
            passphrase,
            slot: None,
            kdf,
            priority: Priority::Normal,
            token: None,
            salt: None,
        }
    }

    /// The number of the keyslot. `None` means the lowest free one.
    #[must_use]
    pub fn slot(mut self, slot: impl Into<Option<u32>>) -> Self {
        self.slot = slot.into();
        self
    }

    /// A token that says where the passphrase is, for [`add_keyslot`]. The same change of the
    /// header stores it under the lowest free number, and adds the number of the keyslot to its
    /// list `keyslots`. LUKS2 only.
    ///
    /// [`add_keyslot`]: super::super::Container::add_keyslot
    #[must_use]
    pub fn token(mut self, token: impl Into<Option<Value>>) -> Self {
        self.token = token.into();
        self
    }

    /// The salt: 32 random bytes that the caller has drawn for this keyslot only, so that it can
    /// recognise the keyslot after a crash.
    #[cfg(feature = "libvirt")]
    pub(crate) fn salt(mut self, salt: Vec<u8>) -> Self {
        self.salt = Some(salt);
        self
    }

    /// The KDF with its salt.
    pub(in crate::container) fn salted(&self) -> Result<Kdf, KeyslotError> {
        let salt = match &self.salt {
            Some(salt) => salt.clone(),
            None => fresh_salt()?,
        };
        Ok(self.kdf.with_salt(salt))
    }

    setters! {
        /// When the keyslot is tried. LUKS1 has [`Priority::Normal`] only.
        priority: Priority,
    }
}

/// A random salt for a KDF.
fn fresh_salt() -> Result<Vec<u8>, KeyslotError> {
    let mut salt = vec![0; 32];
    secret::random(&mut salt)?;
    Ok(salt)
}
