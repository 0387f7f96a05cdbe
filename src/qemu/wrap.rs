//! Secrets for QEMU that are encrypted with a master key: AES-256-CBC with PKCS #7 padding, in
//! base64 (`QCryptoSecretCommon`, `keyid` and `iv`).

use aes::Aes256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cbc::cipher::{Block, BlockModeEncrypt, KeyIvInit};
use zeroize::Zeroize;

use crate::secret::{LockedBytes, Passphrase, SecretError, VolumeKey, random, scrub_stack};

const KEY_BYTES: usize = 32;
const BLOCK_BYTES: usize = 16;

/// A key that QEMU also has, and with which it decrypts secrets.
#[derive(Debug)]
pub struct MasterKey(VolumeKey);

/// A secret that is encrypted with a master key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wrapped {
    /// The initialisation vector, in base64.
    pub iv: String,
    /// The ciphertext, in base64.
    pub data: String,
}

/// The bytes are not a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a master key is 32 bytes, or those in base64")]
pub struct NoMasterKey;

impl MasterKey {
    /// Generates a key.
    ///
    /// # Errors
    /// [`SecretError::Lock`] or [`SecretError::Random`].
    pub fn random() -> Result<Self, SecretError> {
        VolumeKey::random(KEY_BYTES).map(Self)
    }

    /// The key with these bytes. libvirt stores the key of each running domain in this form.
    ///
    /// # Errors
    /// [`NoMasterKey`] as the inner error, [`SecretError::Lock`] as the outer.
    pub fn from_bytes(bytes: &Passphrase) -> Result<Result<Self, NoMasterKey>, SecretError> {
        if bytes.as_bytes().len() != KEY_BYTES {
            return Ok(Err(NoMasterKey));
        }
        Ok(Ok(Self(VolumeKey::copy_from(bytes.as_bytes())?)))
    }

    /// The key with this base64 text. White space at its end is ignored.
    ///
    /// # Errors
    /// [`NoMasterKey`] as the inner error, [`SecretError::Lock`] as the outer.
    pub fn from_base64(text: &Passphrase) -> Result<Result<Self, NoMasterKey>, SecretError> {
        let text = text.as_bytes().trim_ascii_end();
        // The decoder needs a buffer that is longer than the key.
        let mut decoded = LockedBytes::new(text.len())?;
        match STANDARD.decode_slice(text, &mut decoded) {
            Ok(KEY_BYTES) => Ok(Ok(Self(VolumeKey::copy_from(&decoded[..KEY_BYTES])?))),
            _ => Ok(Err(NoMasterKey)),
        }
    }

    /// The base64 text that QEMU reads from a file (`format=base64`).
    ///
    /// # Errors
    /// [`SecretError::Lock`].
    pub fn to_base64(&self) -> Result<Passphrase, SecretError> {
        let len = KEY_BYTES.div_ceil(3) * 4;
        let mut text = LockedBytes::new(len)?;
        // The buffer has exactly the length of the text.
        let _ = STANDARD.encode_slice(self.0.as_bytes(), &mut text);
        Ok(Passphrase::from_locked(text))
    }

    /// Encrypts a secret with a random initialisation vector.
    ///
    /// # Errors
    /// [`SecretError::Lock`] or [`SecretError::Random`].
    pub fn wrap(&self, secret: &Passphrase) -> Result<Wrapped, SecretError> {
        let mut iv = [0; BLOCK_BYTES];
        random(&mut iv)?;
        self.wrap_with(&iv, secret)
    }

    fn wrap_with(
        &self,
        iv: &[u8; BLOCK_BYTES],
        secret: &Passphrase,
    ) -> Result<Wrapped, SecretError> {
        let bytes = secret.as_bytes();
        let padded = (bytes.len() / BLOCK_BYTES + 1) * BLOCK_BYTES;
        let mut buffer = LockedBytes::new(padded)?;
        buffer[..bytes.len()].copy_from_slice(bytes);
        // PKCS #7: 1 to 16 bytes.
        let padding = u8::try_from(padded - bytes.len()).unwrap_or_default();
        buffer[bytes.len()..].fill(padding);
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(self.0.as_bytes());
        let mut cipher = cbc::Encryptor::<Aes256>::new(&key.into(), &(*iv).into());
        key.zeroize();
        for chunk in buffer.chunks_exact_mut(BLOCK_BYTES) {
            let mut block = Block::<Aes256>::default();
            block.copy_from_slice(chunk);
            cipher.encrypt_block(&mut block);
            chunk.copy_from_slice(&block);
        }
        drop(cipher);
        scrub_stack();
        Ok(Wrapped {
            iv: STANDARD.encode(iv),
            data: STANDARD.encode(&buffer[..]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made as in QEMU's "Providing secret data to QEMU":
    /// `printf %s letmein | openssl enc -aes-256-cbc -a -K KEY -iv IV`, with KEY 00 01 … 1f and
    /// IV ff fe … f0.
    #[test]
    fn openssl_agrees() {
        let key: Vec<u8> = (0..32).collect();
        let key = MasterKey(VolumeKey::copy_from(&key).unwrap());
        let iv: [u8; 16] = std::array::from_fn(|at| 0xff - u8::try_from(at).unwrap());
        for (secret, data) in [
            ("letmein", "N5N3PyeDBJW83N9fhi0DkA=="),
            (
                "0123456789abcdef",
                "aDUTufM7kYyciMWX6JHxpK/nsWcyvyTYTRP9btgCOrI=",
            ),
        ] {
            let secret = Passphrase::copy_from(secret.as_bytes()).unwrap();
            let wrapped = key.wrap_with(&iv, &secret).unwrap();
            assert_eq!(wrapped.iv, "//79/Pv6+fj39vX08/Lx8A==");
            assert_eq!(wrapped.data, data);
        }
    }

    #[test]
    fn a_master_key_is_read_as_it_was_written() {
        let key = MasterKey::random().unwrap();
        let mut text = key.to_base64().unwrap().as_bytes().to_vec();
        assert_eq!(text.len(), 44);
        text.push(b'\n');
        let read = MasterKey::from_base64(&Passphrase::copy_from(&text).unwrap());
        assert!(read.unwrap().unwrap().0.ct_eq(&key.0));
        for wrong in ["", "AAAA", "not base64", &"A".repeat(48)] {
            let read = MasterKey::from_base64(&Passphrase::copy_from(wrong.as_bytes()).unwrap());
            assert_eq!(read.unwrap().unwrap_err(), NoMasterKey, "{wrong}");
        }
    }

    #[test]
    fn no_two_wraps_are_the_same() {
        let key = MasterKey::random().unwrap();
        let secret = Passphrase::copy_from(b"x").unwrap();
        assert_ne!(key.wrap(&secret).unwrap(), key.wrap(&secret).unwrap());
    }
}
