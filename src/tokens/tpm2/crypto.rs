//! What both ends of a session with a TPM compute: key derivation, HMAC, encryption of parameters,
//! and the salt that only the TPM can read.
//!
//! Reference: TPM 2.0 Library, part 1, sections 11.4.10 (KDFa, KDFe), 21 (encryption of
//! parameters), and annexes B.10.2 and C.6.3 (salts by RSA and by ECDH).

use aes::Aes128;
use aws_lc_rs::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use cipher::{BlockCipherEncrypt, KeyInit};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::Tpm2Error;
use super::wire::Writer;
use crate::secret::{LockedBytes, random, scrub_stack};

/// The size of a SHA-256 hash, of keys of sessions and of their nonces.
pub(super) const HASH: usize = 32;

/// The size of a block and of a key of AES-128.
const BLOCK: usize = 16;

/// SHA-256 of what is not secret.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; HASH] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// SHA-256 of a secret.
pub(super) fn sha256_of_secret(secret: &[u8]) -> Result<LockedBytes, Tpm2Error> {
    let mut hash = LockedBytes::new(HASH)?;
    hash_into(&mut hash, secret);
    scrub_stack();
    Ok(hash)
}

// Not inlined, as the functions below, so that copies of secrets are on the part of the stack that
// the caller scrubs.
#[inline(never)]
fn hash_into(out: &mut [u8], secret: &[u8]) {
    out.copy_from_slice(&Sha256::digest(secret));
}

/// The HMAC-SHA-256 of a message that is not secret.
pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; HASH] {
    let mac = hmac_of(key, parts);
    scrub_stack();
    mac
}

#[inline(never)]
fn hmac_of(key: &[u8], parts: &[&[u8]]) -> [u8; HASH] {
    // HMAC takes a key of any size.
    let Ok(mut mac) = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key) else {
        return [0; HASH];
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Whether both are the same, in a time that depends only on the lengths.
pub(super) fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

/// KDFa for 256 bits, which are one block of its HMAC.
pub(super) fn kdf_a(
    key: &[u8],
    label: &str,
    one: &[u8],
    other: &[u8],
) -> Result<LockedBytes, Tpm2Error> {
    let bits = 256_u32.to_be_bytes();
    let counter = 1_u32.to_be_bytes();
    let parts = [&counter, label.as_bytes(), &[0], one, other, &bits];
    let mut derived = LockedBytes::new(HASH)?;
    hmac_into(&mut derived, key, &parts);
    scrub_stack();
    Ok(derived)
}

#[inline(never)]
fn hmac_into(out: &mut [u8], key: &[u8], parts: &[&[u8]]) {
    out.copy_from_slice(&hmac_of(key, parts));
}

/// Encrypts or decrypts a parameter in place with AES-128 in CFB mode. `key` has the key and then
/// the IV.
pub(super) fn cfb(key: &[u8], data: &mut [u8], encrypt: bool) {
    cfb_blocks(key, data, encrypt);
    scrub_stack();
}

#[inline(never)]
fn cfb_blocks(key: &[u8], data: &mut [u8], encrypt: bool) {
    let (Some(cipher), Some(iv)) = (
        key.get(..BLOCK)
            .and_then(|key| Aes128::new_from_slice(key).ok()),
        key.get(BLOCK..2 * BLOCK),
    ) else {
        return;
    };
    let mut feedback = [0; BLOCK];
    feedback.copy_from_slice(iv);
    for piece in data.chunks_mut(BLOCK) {
        let mut stream = feedback.into();
        cipher.encrypt_block(&mut stream);
        for ((byte, stream), kept) in piece.iter_mut().zip(stream).zip(&mut feedback) {
            let ciphertext = match encrypt {
                true => *byte ^ stream,
                false => *byte,
            };
            *byte ^= stream;
            *kept = ciphertext;
        }
    }
}

/// The public key of the object under which a secret is sealed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PublicKey {
    /// A point of the curve P-256.
    Ecc { x: Vec<u8>, y: Vec<u8> },
    /// The modulus of an RSA key, whose exponent is 65537.
    Rsa { modulus: Vec<u8> },
}

/// A salt for a session, and its form that only the TPM can decrypt, a `TPM2B_ENCRYPTED_SECRET`.
pub(super) fn salt(key: &PublicKey) -> Result<(LockedBytes, Vec<u8>), Tpm2Error> {
    let salted = match key {
        PublicKey::Ecc { x, y } => salt_by_ecdh(x, y),
        PublicKey::Rsa { modulus } => salt_by_rsa(modulus),
    };
    scrub_stack();
    salted
}

/// The label of a salt (part 1, table 36), without the zero at its end.
const SALT: &[u8] = b"SECRET";

#[inline(never)]
fn salt_by_ecdh(x: &[u8], y: &[u8]) -> Result<(LockedBytes, Vec<u8>), Tpm2Error> {
    let bad = |_| Tpm2Error::PublicKey;
    let mut point = vec![4];
    for coordinate in [x, y] {
        let padding = HASH.checked_sub(coordinate.len());
        let padding = padding.ok_or(Tpm2Error::PublicKey)?;
        point.resize(point.len() + padding, 0);
        point.extend_from_slice(coordinate);
    }
    let own = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).map_err(bad)?;
    let public = own.compute_public_key().map_err(bad)?;
    let own_point = public.as_ref().get(1..).unwrap_or_default();
    let (own_x, own_y) = own_point
        .split_at_checked(HASH)
        .ok_or(Tpm2Error::PublicKey)?;
    let peer = UnparsedPublicKey::new(&ECDH_P256, point);
    // KDFe of 256 bits, which are one hash.
    let salt = agree_ephemeral(own, peer, Tpm2Error::PublicKey, |shared| {
        let counter = 1_u32.to_be_bytes();
        Ok(LockedBytes::from_fill(HASH, |salt| {
            salt.copy_from_slice(&sha256(&[&counter, shared, SALT, &[0], own_x, x]));
        })?)
    })?;
    let point = Writer::new().sized(own_x).sized(own_y).into_bytes();
    Ok((salt, Writer::new().sized(&point).into_bytes()))
}

#[inline(never)]
fn salt_by_rsa(modulus: &[u8]) -> Result<(LockedBytes, Vec<u8>), Tpm2Error> {
    let bad = |_| Tpm2Error::PublicKey;
    let key = PublicEncryptingKey::from_der(&rsa_der(modulus)?);
    let key = key.map_err(|_| Tpm2Error::PublicKey)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(bad)?;
    let mut salt = LockedBytes::new(HASH)?;
    random(&mut salt)?;
    let mut encrypted = vec![0; key.ciphertext_size()];
    let label = [SALT, &[0]].concat();
    let encrypted = key
        .encrypt(&OAEP_SHA256_MGF1SHA256, &salt, &mut encrypted, Some(&label))
        .map_err(bad)?;
    Ok((salt, Writer::new().sized(encrypted).into_bytes()))
}

/// A `SubjectPublicKeyInfo` (RFC 5280, RFC 8017) of an RSA key with 2048 bits and the exponent
/// 65537.
fn rsa_der(modulus: &[u8]) -> Result<Vec<u8>, Tpm2Error> {
    /// Up to the modulus: its size is fixed, and it has a zero before its first bit, which is set.
    const BEGIN: [u8; 33] = [
        0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01,
        0x01, 0x01, 0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82,
        0x01, 0x01, 0x00,
    ];
    const END: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];
    match (modulus.len(), modulus.first()) {
        (256, Some(0x80..)) => Ok([&BEGIN, modulus, &END].concat()),
        _ => Err(Tpm2Error::PublicKey),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfb_is_that_of_nist() {
        // SP 800-38A, section F.3.13.
        let key = hex::decode(concat!(
            "2b7e151628aed2a6abf7158809cf4f3c",
            "000102030405060708090a0b0c0d0e0f"
        ))
        .unwrap();
        let plain = hex::decode(concat!(
            "6bc1bee22e409f96e93d7e117393172a",
            "ae2d8a571e03ac9c9eb76fac45af8e51",
            "30c81c46"
        ))
        .unwrap();
        let mut data = plain.clone();
        cfb(&key, &mut data, true);
        assert_eq!(
            hex::encode(&data),
            concat!(
                "3b3fd92eb72dad20333449f8e83cfb4a",
                "c8a64537a0b3a93fcde3cdad9f1ce58b",
                "26751f67"
            )
        );
        cfb(&key, &mut data, false);
        assert_eq!(data, plain);
    }

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let mac = hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex::encode(mac), expected);
    }

    #[test]
    fn keys_of_other_forms_are_refused() {
        for key in [
            PublicKey::Ecc {
                x: vec![1; 32],
                y: vec![1; 32],
            },
            PublicKey::Ecc {
                x: vec![1; 33],
                y: vec![1; 32],
            },
            PublicKey::Ecc {
                x: Vec::new(),
                y: Vec::new(),
            },
            PublicKey::Rsa {
                modulus: vec![0xff; 255],
            },
            PublicKey::Rsa {
                modulus: vec![0x7f; 256],
            },
        ] {
            assert!(matches!(salt(&key), Err(Tpm2Error::PublicKey)), "{key:?}");
        }
    }
}
