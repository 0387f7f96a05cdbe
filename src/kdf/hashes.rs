//! The hashes that only a build with the feature `ciphers` has.

use luksmith_formats::Hash;
#[cfg(feature = "ciphers")]
pub(super) use {ripemd::Ripemd160, whirlpool::Whirlpool};

use super::error::KdfError;
use crate::feature::MissingFeature;

/// Whether this build has a hash.
///
/// # Errors
/// [`KdfError::MissingFeature`].
pub(crate) fn check_built(hash: Hash) -> Result<(), KdfError> {
    let missing = !cfg!(feature = "ciphers") && matches!(hash, Hash::Ripemd160 | Hash::Whirlpool);
    if missing {
        Err(self::missing(hash).into())
    } else {
        Ok(())
    }
}

/// The error for a hash that this build does not have.
pub(super) fn missing(hash: Hash) -> MissingFeature {
    MissingFeature::new(hash.name(), "ciphers")
}
