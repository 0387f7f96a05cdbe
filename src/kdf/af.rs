//! The anti-forensic splitter (LUKS1 specification, section 2.4).
//!
//! It splits a key into stripes, each as long as the key. All stripes are needed to get the key
//! back, so destroying any part of them destroys the key.

use digest::Digest;
use luksmith_formats::Hash;

use super::error::KdfError;
use super::hashes;
use crate::secret::{LockedBytes, SecretError, random, scrub_stack};
use crate::sys::memory::wipe;

/// Splits `key` into `stripes` stripes. All but the last are random.
///
/// # Errors
/// Returns [`KdfError::Material`] if the key is empty or `stripes` is zero, and also
/// [`KdfError::Lock`] and [`KdfError::Random`].
pub fn split(key: &[u8], stripes: u32, hash: Hash) -> Result<LockedBytes, KdfError> {
    split_with(key, stripes, hash, random)
}

/// Like [`split`], with `fill` in place of the random generator. Its bytes have to be
/// unpredictable.
///
/// # Errors
/// The same as for [`split`].
pub fn split_with(
    key: &[u8],
    stripes: u32,
    hash: Hash,
    fill: impl FnOnce(&mut [u8]) -> Result<(), SecretError>,
) -> Result<LockedBytes, KdfError> {
    let mut material = LockedBytes::new(material_len(key.len(), stripes)?)?;
    let mut split = Split::new(key, stripes, hash)?;
    let (others, last) = material.split_at_mut(split.others);
    fill(others).map_err(KdfError::Random)?;
    split.folded.add(others);
    split.last(last);
    scrub_stack();
    Ok(material)
}

/// Merges key material into the key of `key_len` bytes.
///
/// # Errors
/// Returns [`KdfError::Material`] if `material` is not `stripes` times `key_len` bytes long, and
/// also [`KdfError::Lock`].
pub fn merge(
    material: &[u8],
    key_len: usize,
    stripes: u32,
    hash: Hash,
) -> Result<LockedBytes, KdfError> {
    if material_len(key_len, stripes)? != material.len() {
        return Err(KdfError::Material {
            key_len,
            stripes,
            material: material.len(),
        });
    }
    let mut merge = Merge::new(key_len, stripes, hash)?;
    merge.add(material);
    Ok(merge.finish())
}

fn material_len(key_len: usize, stripes: u32) -> Result<usize, KdfError> {
    usize::try_from(stripes)
        .ok()
        .and_then(|stripes| stripes.checked_mul(key_len))
        .filter(|&len| len != 0)
        .ok_or(KdfError::Material {
            key_len,
            stripes,
            material: 0,
        })
}

/// Makes key material piece by piece, so that only one piece is in locked memory at a time.
pub(crate) struct Split<'a> {
    key: &'a [u8],
    /// The bytes of all stripes but the last that have not been made.
    others: usize,
    folded: Folded,
}

impl<'a> Split<'a> {
    /// Splits `key` into `stripes` stripes.
    ///
    /// # Errors
    /// [`KdfError::Material`] and [`KdfError::Lock`], as for [`split`].
    pub(crate) fn new(key: &'a [u8], stripes: u32, hash: Hash) -> Result<Self, KdfError> {
        Ok(Self {
            others: material_len(key.len(), stripes)? - key.len(),
            folded: Folded::new(key.len(), hash)?,
            key,
        })
    }

    /// Writes the next bytes of the material. The bytes after its end are left as they are.
    ///
    /// # Errors
    /// [`KdfError::Random`].
    pub(crate) fn fill(&mut self, piece: &mut [u8]) -> Result<(), KdfError> {
        let (others, last) = piece.split_at_mut(self.others.min(piece.len()));
        random(others).map_err(KdfError::Random)?;
        self.others -= others.len();
        self.folded.add(others);
        self.last(last);
        scrub_stack();
        Ok(())
    }

    /// Writes bytes of the last stripe.
    fn last(&mut self, piece: &mut [u8]) {
        let len = piece.len().min(self.key.len());
        let (key, rest) = self.key.split_at(len);
        for ((piece, key), folded) in piece.iter_mut().zip(key).zip(self.folded.rest()) {
            *piece = key ^ *folded;
        }
        self.folded.at += len;
        self.key = rest;
    }
}

/// Merges key material piece by piece: the reverse of [`Split`].
pub(crate) struct Merge {
    folded: Folded,
    /// The bytes of all stripes but the last that have not been added.
    others: usize,
}

impl Merge {
    /// Merges `stripes` stripes into a key of `key_len` bytes.
    ///
    /// # Errors
    /// [`KdfError::Material`] and [`KdfError::Lock`], as for [`merge`].
    pub(crate) fn new(key_len: usize, stripes: u32, hash: Hash) -> Result<Self, KdfError> {
        Ok(Self {
            others: material_len(key_len, stripes)? - key_len,
            folded: Folded::new(key_len, hash)?,
        })
    }

    /// Adds the next bytes of the material. Bytes after its end are ignored.
    pub(crate) fn add(&mut self, piece: &[u8]) {
        let (others, last) = piece.split_at(self.others.min(piece.len()));
        self.others -= others.len();
        self.folded.add(others);
        for (sum, last) in self.folded.rest().iter_mut().zip(last) {
            *sum ^= last;
        }
        self.folded.at += last.len().min(self.folded.rest().len());
        scrub_stack();
    }

    /// The key, after all of the material was added.
    pub(crate) fn finish(self) -> LockedBytes {
        self.folded.bytes
    }
}

/// The combination of stripes: each one is added to the sum so far, which is then diffused.
struct Folded {
    bytes: LockedBytes,
    /// The bytes of the current stripe that have been added.
    at: usize,
    diffuse: fn(&mut [u8]),
}

impl Folded {
    fn new(key_len: usize, hash: Hash) -> Result<Self, KdfError> {
        let diffuse = match hash {
            Hash::Sha1 => diffuse::<sha1::Sha1>,
            Hash::Sha224 => diffuse::<sha2::Sha224>,
            Hash::Sha256 => diffuse::<sha2::Sha256>,
            Hash::Sha384 => diffuse::<sha2::Sha384>,
            Hash::Sha512 => diffuse::<sha2::Sha512>,
            #[cfg(feature = "ciphers")]
            Hash::Ripemd160 => diffuse::<hashes::Ripemd160>,
            #[cfg(feature = "ciphers")]
            Hash::Whirlpool => diffuse::<hashes::Whirlpool>,
            #[cfg(feature = "ciphers")]
            Hash::Sm3 => diffuse::<hashes::Sm3>,
            #[cfg(feature = "ciphers")]
            Hash::Sha3_224 => diffuse::<hashes::Sha3_224>,
            #[cfg(feature = "ciphers")]
            Hash::Sha3_256 => diffuse::<hashes::Sha3_256>,
            #[cfg(feature = "ciphers")]
            Hash::Sha3_384 => diffuse::<hashes::Sha3_384>,
            #[cfg(feature = "ciphers")]
            Hash::Sha3_512 => diffuse::<hashes::Sha3_512>,
            #[cfg(feature = "ciphers")]
            Hash::Blake2s256 => diffuse::<hashes::Blake2s256>,
            #[cfg(feature = "ciphers")]
            Hash::Blake2b512 => diffuse::<hashes::Blake2b512>,
            #[cfg(not(feature = "ciphers"))]
            _ => return Err(hashes::missing(hash).into()),
        };
        Ok(Self {
            bytes: LockedBytes::new(key_len)?,
            at: 0,
            diffuse,
        })
    }

    /// Adds bytes of stripes that are not the last one.
    fn add(&mut self, mut stripes: &[u8]) {
        while !stripes.is_empty() {
            let sum = self.bytes.get_mut(self.at..).unwrap_or_default();
            let (now, later) = stripes.split_at(sum.len().min(stripes.len()));
            for (sum, stripe) in sum.iter_mut().zip(now) {
                *sum ^= stripe;
            }
            self.at += now.len();
            stripes = later;
            if self.at == self.bytes.len() {
                (self.diffuse)(&mut self.bytes);
                self.at = 0;
            }
        }
    }

    /// The sum where the current stripe has not been added.
    fn rest(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.at..).unwrap_or_default()
    }
}

/// Replaces each block, of the size of a digest, with the hash of its number and its bytes. A
/// shorter last block gets the start of its hash.
#[inline(never)]
fn diffuse<D: Digest>(bytes: &mut [u8]) {
    for (block, number) in bytes.chunks_mut(<D as Digest>::output_size()).zip(0u32..) {
        let mut hashed = D::new()
            .chain_update(number.to_be_bytes())
            .chain_update(&*block)
            .finalize();
        block.copy_from_slice(&hashed[..block.len()]);
        wipe(&mut hashed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_reverses_split() {
        for hash in hashes::built() {
            for key_len in [1, 16, 20, 33, 64, 65] {
                let key: Vec<u8> = (0u8..).take(key_len).collect();
                let material = split(&key, 7, hash).unwrap();
                assert_eq!(material.len(), 7 * key_len);
                assert_eq!(merge(&material, key_len, 7, hash).unwrap()[..], key[..]);
            }
        }
    }

    #[test]
    fn pieces_of_any_length_give_what_one_piece_gives() {
        let key: Vec<u8> = (0u8..33).collect();
        for piece in [1, 5, 33, 64, 100, 1000] {
            let mut material = vec![0; 7 * 33_usize];
            let mut split = Split::new(&key, 7, Hash::Sha256).unwrap();
            for part in material.chunks_mut(piece) {
                split.fill(part).unwrap();
            }
            assert_eq!(merge(&material, 33, 7, Hash::Sha256).unwrap()[..], key[..]);
            material.extend([9; 100]); // the rest of the last sector
            let mut merge = Merge::new(33, 7, Hash::Sha256).unwrap();
            for part in material.chunks(piece) {
                merge.add(part);
            }
            assert_eq!(merge.finish()[..], key[..]);
        }
    }

    #[test]
    fn every_stripe_is_needed() {
        let key = [0x42; 32];
        let mut material = split(&key, 5, Hash::Sha256).unwrap();
        for at in [0, 31, 32, 100, 159] {
            material[at] ^= 1;
            assert_ne!(merge(&material, 32, 5, Hash::Sha256).unwrap()[..], key);
            material[at] ^= 1;
        }
    }

    #[test]
    fn wrong_lengths_are_errors() {
        for (len, key_len, stripes) in [(63, 16, 4), (64, 0, 4), (64, 16, 0), (0, 0, 0)] {
            let merged = merge(&vec![0; len], key_len, stripes, Hash::Sha1);
            assert!(matches!(merged, Err(KdfError::Material { .. })));
        }
        assert!(matches!(
            split(&[0; 1 << 20], u32::MAX, Hash::Sha1),
            Err(KdfError::Lock(_))
        ));
    }
}
