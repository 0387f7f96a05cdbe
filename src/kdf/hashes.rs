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

/// The hashes of this build.
#[cfg(test)]
pub(super) fn built() -> impl Iterator<Item = Hash> {
    let built = |hash: &Hash| check_built(*hash).is_ok();
    Hash::ALL.into_iter().filter(built)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hashes_of_the_feature_can_be_missing() {
        let missing: Vec<_> = Hash::ALL
            .into_iter()
            .filter_map(|hash| check_built(hash).err())
            .map(|error| error.to_string())
            .collect();
        if cfg!(feature = "ciphers") {
            assert_eq!(missing, [""; 0]);
            return;
        }
        let expected = ["ripemd160", "whirlpool"].map(|hash| {
            format!(
                "{hash} needs the feature \"ciphers\" of luksmith, which this build does not have"
            )
        });
        assert_eq!(missing, expected);
    }
}
