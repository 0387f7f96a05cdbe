//! What a keyslot is made from.

use luksmith_formats::luks2::Priority;

use crate::container::KeyslotError;
use crate::kdf::calibrate::Cost;
use crate::secret::{self, Passphrase};

/// What a new keyslot is made of.
pub struct NewKeyslot<'a> {
    /// What will open it.
    pub passphrase: &'a Passphrase,
    /// Its number; the lowest free one when not given.
    pub slot: Option<u32>,
    /// What deriving its key costs.
    pub kdf: Cost,
    /// When it is tried. LUKS1 knows only [`Priority::Normal`].
    pub priority: Priority,
}

/// A random salt for a KDF.
pub(super) fn fresh_salt() -> Result<Vec<u8>, KeyslotError> {
    let mut salt = vec![0; 32];
    secret::random(&mut salt)?;
    Ok(salt)
}
