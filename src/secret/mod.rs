//! Secrets: passphrases and volume keys in locked memory, and the sources that they are read from.
//!
//! This crate never puts a secret into a `String` or on the ordinary heap. A secret type has no
//! `Clone` and a redacted `Debug`. No source takes a secret from the command line or the
//! environment, where other processes can see it.

mod allocator;
mod boxed;
mod input;
mod locked;
mod schemes;
mod source;
mod stack;
mod terminal;

pub use allocator::WipingAllocator;
pub(crate) use boxed::LockedBox;
pub use locked::{LockError, LockedBytes};
pub use schemes::{AnySource, Scheme};
pub use source::{MAX_KEY_FILE, ParseSourceError, Source};
pub use stack::scrub_stack;
pub(crate) use stack::scrub_stack_of_sectors;
pub use terminal::MAX_TYPED;

use core::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::TryRng;
use rand::rngs::SysRng;
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

use crate::Interrupt;

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

/// A source of passphrases: a terminal, a file, a descriptor, another program.
pub trait SecretSource: Send + Sync {
    /// Reads the secret. A source that asks a person shows the label of `purpose`.
    ///
    /// # Errors
    /// [`SecretError`]; [`SecretError::Interrupted`] when `purpose.interrupt` was set meanwhile.
    fn read(&self, purpose: Purpose<'_>) -> Result<Passphrase, SecretError>;
}

/// What a secret is read for: the label of the question, and whether it is asked twice.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Purpose<'a> {
    /// Whether the secret exists or is being set.
    pub what: Wanted,
    /// What the secret opens, in words for the person who is asked: an image, a keyslot.
    pub label: &'a str,
    /// Stops a source that waits.
    pub interrupt: &'a Interrupt,
}

impl<'a> Purpose<'a> {
    /// A secret that exists.
    #[must_use]
    pub fn unlock(label: &'a str, interrupt: &'a Interrupt) -> Self {
        Self {
            what: Wanted::Unlock,
            label,
            interrupt,
        }
    }

    /// A secret that is being set.
    #[must_use]
    pub fn new_secret(label: &'a str, interrupt: &'a Interrupt) -> Self {
        Self {
            what: Wanted::New,
            label,
            interrupt,
        }
    }
}

/// Whether a secret exists or is being set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It exists, and opens something.
    Unlock,
    /// It is being set: a person is asked twice, and it cannot be empty.
    New,
}

/// Why a secret was not read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// No locked memory could be had.
    #[error("the secret cannot be held safely")]
    Lock(#[from] LockError),
    /// The operating system's random number generator failed.
    #[error("no random bytes from the operating system")]
    Random(#[source] std::io::Error),
    /// The text does not name a source.
    #[error(transparent)]
    Parse(#[from] ParseSourceError),
    /// A secret that is being set is empty.
    #[error("the new secret is empty")]
    Empty,
    /// The source is empty.
    #[error("{from} holds no secret: nothing to read")]
    Nothing {
        /// The source, as its own text.
        from: String,
    },
    /// The source holds more bytes than a secret may have.
    #[error("the secret from {from} is longer than {limit} bytes")]
    TooLong {
        /// The source, as its own text.
        from: String,
        /// The longest secret of this source, in bytes.
        limit: usize,
    },
    /// A file ends before the requested bytes.
    #[error("{path} ends before byte {wanted}")]
    Short {
        /// The file.
        path: PathBuf,
        /// The end of the requested range, in bytes.
        wanted: u64,
    },
    /// The two answers to the question for a new passphrase differ.
    #[error("the two passphrases are not the same")]
    Mismatch,
    /// The process has no terminal to ask on.
    #[error("no terminal to ask on")]
    NoTerminal(#[source] std::io::Error),
    /// Standard input carries data, and cannot carry a secret too.
    #[error("standard input carries the data and cannot carry the secret too")]
    StdinTaken,
    /// `credential:` is used outside a service to which systemd passed credentials.
    #[error("no credentials directory: $CREDENTIALS_DIRECTORY is not set")]
    NoCredentials,
    /// The interrupt was set.
    #[error("interrupted")]
    Interrupted,
    /// A typed secret that is being set is too easy to guess, as the program that asks judges it.
    #[error("{0}")]
    TooWeak(String),
    /// A source that makes new secrets was asked for one that exists.
    #[error("{from} makes a new passphrase, and this one has to exist")]
    OnlyNew {
        /// The source, as its own text.
        from: String,
    },
    /// The source of a [`Scheme`] failed.
    #[error("{from}")]
    Scheme {
        /// The source, as its own text.
        from: String,
        /// The error of the module that has the scheme.
        source: Box<dyn core::error::Error + Send + Sync>,
    },
    /// A file, descriptor or terminal failed.
    #[error("cannot read {from}")]
    Io {
        /// The source, as its own text or its path.
        from: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
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
