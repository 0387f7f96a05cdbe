//! The hashes that only a build with the feature `ciphers` has.

use luksmith_formats::Hash;
use sha2::Digest;
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

/// A hash function that this build has.
#[derive(Clone, Copy)]
pub(crate) struct HashFunction {
    size: usize,
    append: fn(&[u8], &mut Vec<u8>),
}

impl HashFunction {
    /// The function of this hash.
    ///
    /// # Errors
    /// [`KdfError::MissingFeature`].
    pub(crate) fn of(hash: Hash) -> Result<Self, KdfError> {
        fn add<D: Digest>(bytes: &[u8], to: &mut Vec<u8>) {
            to.extend_from_slice(&D::digest(bytes));
        }
        let append = match hash {
            Hash::Sha1 => add::<sha1::Sha1>,
            Hash::Sha224 => add::<sha2::Sha224>,
            Hash::Sha256 => add::<sha2::Sha256>,
            Hash::Sha384 => add::<sha2::Sha384>,
            Hash::Sha512 => add::<sha2::Sha512>,
            #[cfg(feature = "ciphers")]
            Hash::Ripemd160 => add::<Ripemd160>,
            #[cfg(feature = "ciphers")]
            Hash::Whirlpool => add::<Whirlpool>,
            #[cfg(feature = "ciphers")]
            Hash::Sm3 => add::<Sm3>,
            #[cfg(feature = "ciphers")]
            Hash::Sha3_224 => add::<Sha3_224>,
            #[cfg(feature = "ciphers")]
            Hash::Sha3_256 => add::<Sha3_256>,
            #[cfg(feature = "ciphers")]
            Hash::Sha3_384 => add::<Sha3_384>,
            #[cfg(feature = "ciphers")]
            Hash::Sha3_512 => add::<Sha3_512>,
            #[cfg(feature = "ciphers")]
            Hash::Blake2s256 => add::<Blake2s256>,
            #[cfg(feature = "ciphers")]
            Hash::Blake2b512 => add::<Blake2b512>,
            #[cfg(not(feature = "ciphers"))]
            _ => return Err(missing(hash).into()),
        };
        Ok(Self {
            size: hash.size(),
            append,
        })
    }

    /// The size of its output in bytes.
    pub(crate) fn size(self) -> usize {
        self.size
    }

    /// Appends the hash of `bytes`.
    pub(crate) fn append(self, bytes: &[u8], to: &mut Vec<u8>) {
        (self.append)(bytes, to);
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
