//! Hash functions by their name, and which of them this build has.

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
#[cfg(target_arch = "x86_64")]
use super::x86_64::{by_words::Kernel as _, sha256::Sha256, sha256_lanes::Sha256Lanes};
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
    append_each: fn(&[u8], usize, &mut Vec<u8>),
}

impl HashFunction {
    /// The function of this hash.
    ///
    /// # Errors
    /// [`KdfError::MissingFeature`].
    pub(crate) fn of(hash: Hash) -> Result<Self, KdfError> {
        Ok(match hash {
            Hash::Sha1 => Self::with::<sha1::Sha1>(),
            Hash::Sha224 => Self::with::<sha2::Sha224>(),
            Hash::Sha256 => Self {
                append_each: each_sha256,
                ..Self::with::<sha2::Sha256>()
            },
            Hash::Sha384 => Self::with::<sha2::Sha384>(),
            Hash::Sha512 => Self::with::<sha2::Sha512>(),
            #[cfg(feature = "ciphers")]
            Hash::Ripemd160 => Self::with::<Ripemd160>(),
            #[cfg(feature = "ciphers")]
            Hash::Whirlpool => Self::with::<Whirlpool>(),
            #[cfg(feature = "ciphers")]
            Hash::Sm3 => Self::with::<Sm3>(),
            #[cfg(feature = "ciphers")]
            Hash::Sha3_224 => Self::with::<Sha3_224>(),
            #[cfg(feature = "ciphers")]
            Hash::Sha3_256 => Self::with::<Sha3_256>(),
            #[cfg(feature = "ciphers")]
            Hash::Sha3_384 => Self::with::<Sha3_384>(),
            #[cfg(feature = "ciphers")]
            Hash::Sha3_512 => Self::with::<Sha3_512>(),
            #[cfg(feature = "ciphers")]
            Hash::Blake2s256 => Self::with::<Blake2s256>(),
            #[cfg(feature = "ciphers")]
            Hash::Blake2b512 => Self::with::<Blake2b512>(),
            #[cfg(not(feature = "ciphers"))]
            _ => return Err(missing(hash).into()),
        })
    }

    fn with<D: Digest>() -> Self {
        Self {
            size: <D as Digest>::output_size(),
            append: |bytes, to| to.extend_from_slice(&D::digest(bytes)),
            append_each: |bytes, block, to| {
                for block in bytes.chunks(block) {
                    to.extend_from_slice(&D::digest(block));
                }
            },
        }
    }

    /// The size of its output in bytes.
    pub(crate) fn size(self) -> usize {
        self.size
    }

    /// Appends the hash of `bytes`.
    pub(crate) fn append(self, bytes: &[u8], to: &mut Vec<u8>) {
        (self.append)(bytes, to);
    }

    /// Appends the hash of each block of `block` bytes. The last one may be shorter.
    pub(crate) fn append_each(self, bytes: &[u8], block: usize, to: &mut Vec<u8>) {
        (self.append_each)(bytes, block, to);
    }
}

/// Hashes several blocks at the same time, if this CPU has the instructions for that.
fn each_sha256(bytes: &[u8], block: usize, to: &mut Vec<u8>) {
    #[cfg(target_arch = "x86_64")]
    let bytes = several_sha256(bytes, block, to);
    for block in bytes.chunks(block) {
        to.extend_from_slice(&sha2::Sha256::digest(block));
    }
}

/// The same for as many blocks as there are instructions for. Returns the rest.
#[cfg(target_arch = "x86_64")]
fn several_sha256<'a>(bytes: &'a [u8], block: usize, to: &mut Vec<u8>) -> &'a [u8] {
    let mut rest = bytes;
    if block.is_multiple_of(64)
        && let Some(kernel) = Sha256Lanes::detect()
    {
        rest = kernel.append_each(rest, block, to);
    }
    if let Some(kernel) = Sha256::detect() {
        while let Some((pair, later)) = rest.split_at_checked(2 * block) {
            let (one, other) = pair.split_at(block);
            to.extend(kernel.hash_two([one, other]).as_flattened());
            rest = later;
        }
    }
    rest
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
    fn each_block_has_its_own_hash() {
        let bytes: Vec<u8> = (0..9000_u32).map(|at| (at * at).to_le_bytes()[1]).collect();
        for hash in built() {
            let function = HashFunction::of(hash).unwrap();
            for (len, block) in [
                (0, 64),
                (63, 64),
                (512, 512),
                (5000, 512),
                (5000, 100),
                (4097, 1),
                (2240, 64),
                (9000, 128),
                (9000, 512),
                (9000, 120),
            ] {
                let (mut each, mut expected) = (Vec::new(), Vec::new());
                function.append_each(&bytes[..len], block, &mut each);
                for block in bytes[..len].chunks(block) {
                    function.append(block, &mut expected);
                }
                assert_eq!(each, expected, "{hash:?}: {len} bytes in blocks of {block}");
            }
        }
    }

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
