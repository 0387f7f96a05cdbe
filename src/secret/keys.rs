//! Passphrases and volume keys: the secrets themselves.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::TryRng;
use rand::rngs::SysRng;
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

use super::error::SecretError;
use super::locked::{LockError, LockedBytes};

/// What opens a keyslot: a typed passphrase or the bytes of a key file. It may be any bytes.
pub struct Passphrase(LockedBytes);

/// The key with which the data of a volume is encrypted.
pub struct VolumeKey(LockedBytes);

macro_rules! secret_bytes {
    ($name:ident) => {
        impl $name {
            /// Takes ownership of bytes in locked memory.
            #[must_use]
            pub fn from_locked(bytes: LockedBytes) -> Self {
                Self(bytes)
            }

            /// Copies `bytes` into locked memory. The caller wipes the original.
            ///
            /// # Errors
            /// [`LockError`] when the memory cannot be locked.
            pub fn copy_from(bytes: &[u8]) -> Result<Self, LockError> {
                LockedBytes::copy_from(bytes).map(Self)
            }

            /// The secret itself. The caller wipes any copy that it makes of this slice.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// Whether both are the same bytes, in a time that depends only on the lengths.
            #[must_use]
            pub fn ct_eq(&self, other: &Self) -> bool {
                self.0[..].ct_eq(&other.0[..]).into()
            }
        }

        impl ExposeSecret<[u8]> for $name {
            fn expose_secret(&self) -> &[u8] {
                self.as_bytes()
            }
        }

        impl ZeroizeOnDrop for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }
    };
}

secret_bytes!(Passphrase);
secret_bytes!(VolumeKey);

impl Passphrase {
    /// The passphrase without the newline at its end, as an editor or `echo` adds one to a key
    /// file. `None` if it does not end with one.
    ///
    /// # Errors
    /// [`SecretError::Lock`] when the memory cannot be locked.
    pub fn without_newline(&self) -> Result<Option<Self>, SecretError> {
        let stripped = self.as_bytes().strip_suffix(b"\n");
        Ok(stripped.map(Self::copy_from).transpose()?)
    }
}

/// The random bytes of a generated passphrase.
const GENERATED: usize = 32;

impl Passphrase {
    /// Generates a passphrase of 256 random bits: the 44 characters of their base64, which every
    /// program takes as text.
    ///
    /// # Errors
    /// [`SecretError::Lock`] or [`SecretError::Random`].
    pub fn generate() -> Result<Self, SecretError> {
        let mut bits = LockedBytes::new(GENERATED)?;
        random(&mut bits)?;
        Self::base64_of(&bits)
    }

    /// Whether it is UTF-8 without NUL. QEMU takes no other passphrase.
    #[must_use]
    pub fn is_text(&self) -> bool {
        let bytes = self.as_bytes();
        !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
    }

    /// The base64 of `bytes` (RFC 4648, padded, in one line), for programs that take only text.
    ///
    /// # Errors
    /// [`SecretError::Lock`].
    pub fn base64_of(bytes: &[u8]) -> Result<Self, SecretError> {
        let mut text = LockedBytes::new(bytes.len().div_ceil(3) * 4)?;
        // The buffer has the length of padded base64.
        let written = STANDARD.encode_slice(bytes, &mut text);
        debug_assert_eq!(written, Ok(text.len()));
        Ok(Self(text))
    }
}

impl VolumeKey {
    /// Generates a key of `len` bytes with the operating system's random number generator.
    ///
    /// # Errors
    /// [`SecretError::Lock`] or [`SecretError::Random`].
    pub fn random(len: usize) -> Result<Self, SecretError> {
        let mut bytes = LockedBytes::new(len)?;
        random(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// Fills `buf` from the operating system's random number generator.
///
/// # Errors
/// [`SecretError::Random`] when the generator fails. The contents of `buf` must not be used then.
pub fn random(buf: &mut [u8]) -> Result<(), SecretError> {
    SysRng
        .try_fill_bytes(buf)
        .map_err(|error| SecretError::Random(std::io::Error::from(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_compares_all_bytes_and_the_length() {
        let a = VolumeKey::copy_from(b"0123456789abcdef").unwrap();
        assert!(a.ct_eq(&VolumeKey::copy_from(b"0123456789abcdef").unwrap()));
        assert!(!a.ct_eq(&VolumeKey::copy_from(b"0123456789abcdeF").unwrap()));
        assert!(!a.ct_eq(&VolumeKey::copy_from(b"0123456789abcde").unwrap()));
    }

    #[test]
    fn random_keys_differ() {
        let (a, b) = (
            VolumeKey::random(64).unwrap(),
            VolumeKey::random(64).unwrap(),
        );
        assert_eq!(a.as_bytes().len(), 64);
        assert!(!a.ct_eq(&b));
    }

    #[test]
    fn a_generated_passphrase_is_the_base64_of_256_bits_and_never_the_same() {
        let (a, b) = (
            Passphrase::generate().unwrap(),
            Passphrase::generate().unwrap(),
        );
        assert_eq!(STANDARD.decode(a.as_bytes()).unwrap().len(), 32);
        assert!(!a.ct_eq(&b));
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"\xff\0", "/wA="),
        ] {
            assert_eq!(
                Passphrase::base64_of(bytes).unwrap().as_bytes(),
                text.as_bytes()
            );
        }
    }

    #[test]
    fn debug_is_redacted() {
        let key = VolumeKey::copy_from(b"\x01\x02secret").unwrap();
        assert_eq!(format!("{key:?}"), "VolumeKey([redacted])");
        let passphrase = Passphrase::copy_from(b"secret").unwrap();
        assert_eq!(format!("{passphrase:?}"), "Passphrase([redacted])");
    }
}
