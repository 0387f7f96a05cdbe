//! The hashes that only a build with the feature `ciphers` has.

use luksmith_formats::Hash;
#[cfg(feature = "ciphers")]
pub(super) use {
    blake2::{Blake2b512, Blake2s256},
    ripemd::Ripemd160,
    sha3::{Sha3_224, Sha3_256, Sha3_384, Sha3_512},
    sm3::Sm3,
    whirlpool::Whirlpool,
};

use super::error::KdfError;
use crate::feature::MissingFeature;

/// Whether this build has a hash.
///
/// # Errors
/// [`KdfError::MissingFeature`].
pub(crate) fn check_built(hash: Hash) -> Result<(), KdfError> {
    let always = matches!(
        hash,
        Hash::Sha1 | Hash::Sha224 | Hash::Sha256 | Hash::Sha384 | Hash::Sha512
    );
    if always || cfg!(feature = "ciphers") {
        Ok(())
    } else {
        Err(missing(hash).into())
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
        let expected = [
            "ripemd160",
            "whirlpool",
            "sm3",
            "sha3-224",
            "sha3-256",
            "sha3-384",
            "sha3-512",
            "blake2s-256",
            "blake2b-512",
        ];
        let expected = expected.map(|hash| {
            format!(
                "{hash} needs the feature \"ciphers\" of luksmith, which this build does not have"
            )
        });
        assert_eq!(missing, expected);
    }
}
