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
    let len = material_len(key.len(), stripes)?;
    let mut material = LockedBytes::new(len)?;
    let (others, last) = material.split_at_mut(len - key.len());
    fill(others).map_err(KdfError::Random)?;
    let folded = fold(others, key.len(), hash)?;
    for ((last, key), folded) in last.iter_mut().zip(key).zip(&*folded) {
        *last = key ^ folded;
    }
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
    let (others, last) = material.split_at(material.len() - key_len);
    let mut key = fold(others, key_len, hash)?;
    for (key, last) in key.iter_mut().zip(last) {
        *key ^= last;
    }
    Ok(key)
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

/// Combines stripes: for each one, adds it to the sum so far and diffuses the result.
fn fold(stripes: &[u8], key_len: usize, hash: Hash) -> Result<LockedBytes, KdfError> {
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
        #[cfg(not(feature = "ciphers"))]
        Hash::Ripemd160 | Hash::Whirlpool => return Err(hashes::missing(hash).into()),
    };
    let mut folded = LockedBytes::new(key_len)?;
    for stripe in stripes.chunks_exact(key_len) {
        for (folded, stripe) in folded.iter_mut().zip(stripe) {
            *folded ^= stripe;
        }
        diffuse(&mut folded);
    }
    scrub_stack();
    Ok(folded)
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
