//! Cipher specifications such as `aes-xts-plain64`, taken from a closed list.
//!
//! A name in a header is data, never a request to load something: null ciphers (CVE-2025-59054,
//! CVE-2025-58356), kernel driver names and everything unknown are refused, each with its own message.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use crate::hash::Hash;

/// A block cipher with 16-byte blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockCipher {
    /// AES.
    Aes,
    /// Serpent.
    Serpent,
    /// Twofish.
    Twofish,
    /// Camellia.
    Camellia,
}

/// How blocks of a sector are chained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// XTS, IEEE 1619: the key is two cipher keys.
    Xts,
    /// CBC over each sector.
    Cbc,
}

/// How a sector number becomes an IV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IvGenerator {
    /// The low 32 bits of the sector number, little-endian, zero-padded.
    Plain,
    /// The sector number in 64 bits, little-endian, zero-padded.
    Plain64,
    /// The sector number in 64 bits, big-endian, at the end of the IV.
    Plain64Be,
    /// The plain64 IV encrypted with the same cipher under the SHA-256 of the key.
    EssivSha256,
}

/// What encrypts a data segment or a keyslot area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CipherSpec {
    /// The block cipher.
    pub cipher: BlockCipher,
    /// The chaining mode.
    pub mode: Mode,
    /// The IV generator.
    pub iv: IvGenerator,
}

/// A cipher specification that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CipherError {
    /// A cipher that does not encrypt.
    #[error(
        "a null cipher does not encrypt, and is refused (CVE-2025-59054: whoever can write the header could \
         have data written in the clear)"
    )]
    Null,
    /// The name of a kernel driver or template instead of a cipher.
    #[error(
        "{0:?} names a kernel driver, not a cipher; cipher names such as aes-xts-plain64 are taken"
    )]
    DriverName(String),
    /// A cipher, mode or IV generator that is not in the list.
    #[error(
        "unknown cipher {0:?}; known are aes, serpent, twofish and camellia, in xts or cbc, with plain, \
         plain64, plain64be, or essiv:sha256 (cbc only)"
    )]
    Unknown(String),
    /// A key length that the cipher does not have.
    #[error("{spec} has no keys of {bytes} bytes")]
    KeySize {
        /// The cipher.
        spec: CipherSpec,
        /// The length that was asked for.
        bytes: usize,
    },
}

impl BlockCipher {
    /// Every cipher.
    pub const ALL: [Self; 4] = [Self::Aes, Self::Serpent, Self::Twofish, Self::Camellia];

    /// The name as headers spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes => "aes",
            Self::Serpent => "serpent",
            Self::Twofish => "twofish",
            Self::Camellia => "camellia",
        }
    }
}

impl Mode {
    /// The name as headers spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xts => "xts",
            Self::Cbc => "cbc",
        }
    }
}

impl IvGenerator {
    /// The name as headers spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Plain64 => "plain64",
            Self::Plain64Be => "plain64be",
            Self::EssivSha256 => "essiv:sha256",
        }
    }

    /// `plain64:sha256` is what QEMU and libvirt write when an IV hash was given with a generator that uses
    /// none; the kernel ignores it, and so do we, when it is a hash at all.
    fn parse(name: &str) -> Option<Self> {
        if name == "essiv:sha256" {
            return Some(Self::EssivSha256);
        }
        let (generator, hash) = match name.split_once(':') {
            Some((generator, hash)) => (generator, Some(hash)),
            None => (name, None),
        };
        if hash.is_some_and(|hash| Hash::parse(hash).is_err()) {
            return None;
        }
        match generator {
            "plain" => Some(Self::Plain),
            "plain64" => Some(Self::Plain64),
            "plain64be" => Some(Self::Plain64Be),
            _ => None,
        }
    }
}

impl CipherSpec {
    /// The default of LUKS1 and LUKS2.
    pub const AES_XTS_PLAIN64: Self = Self {
        cipher: BlockCipher::Aes,
        mode: Mode::Xts,
        iv: IvGenerator::Plain64,
    };

    /// Reads a specification as LUKS2 spells it: cipher, mode and IV generator with dashes between.
    ///
    /// # Errors
    /// [`CipherError`]: a null cipher, the name of a kernel driver, or one that is not known.
    pub fn parse(text: &str) -> Result<Self, CipherError> {
        refuse_on_sight(text)?;
        let unknown = || CipherError::Unknown(excerpt(text));
        let (name, mode) = text.split_once('-').ok_or_else(unknown)?;
        let cipher = BlockCipher::ALL
            .into_iter()
            .find(|cipher| cipher.name() == name)
            .ok_or_else(unknown)?;
        let (mode, iv) = mode.split_once('-').ok_or_else(unknown)?;
        let mode = match mode {
            "xts" => Mode::Xts,
            "cbc" => Mode::Cbc,
            _ => return Err(unknown()),
        };
        let iv = IvGenerator::parse(iv).ok_or_else(unknown)?;
        if mode == Mode::Xts && iv == IvGenerator::EssivSha256 {
            return Err(unknown());
        }
        Ok(Self { cipher, mode, iv })
    }

    /// Reads the two fields of a LUKS1 header: `aes` and `xts-plain64`.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse).
    pub fn from_luks1(name: &str, mode: &str) -> Result<Self, CipherError> {
        let whole = format!("{name}-{mode}");
        if name.contains('-') {
            refuse_on_sight(&whole)?;
            return Err(CipherError::Unknown(excerpt(&whole)));
        }
        Self::parse(&whole)
    }

    /// The two fields of a LUKS1 header.
    pub fn luks1_names(&self) -> (String, String) {
        let mode = format!("{}-{}", self.mode.name(), self.iv.name());
        (self.cipher.name().to_string(), mode)
    }

    /// Whether the cipher has keys of so many bytes (both halves together for XTS).
    ///
    /// # Errors
    /// [`CipherError::KeySize`] for a size that is none of [`key_sizes`](Self::key_sizes).
    pub fn check_key_size(&self, bytes: usize) -> Result<(), CipherError> {
        if self.key_sizes().contains(&bytes) {
            Ok(())
        } else {
            Err(CipherError::KeySize { spec: *self, bytes })
        }
    }

    /// The key lengths in bytes, shortest first; both halves together for XTS.
    pub fn key_sizes(&self) -> &'static [usize] {
        match self.mode {
            Mode::Xts => &[32, 64],
            Mode::Cbc => &[16, 24, 32],
        }
    }

    /// The key length in bytes that a new volume gets: 256-bit ciphers.
    pub fn default_key_size(&self) -> usize {
        match self.mode {
            Mode::Xts => 64,
            Mode::Cbc => 32,
        }
    }
}

impl fmt::Display for CipherSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cipher, mode, iv) = (self.cipher.name(), self.mode.name(), self.iv.name());
        write!(f, "{cipher}-{mode}-{iv}")
    }
}

impl core::str::FromStr for CipherSpec {
    type Err = CipherError;

    fn from_str(text: &str) -> Result<Self, CipherError> {
        Self::parse(text)
    }
}

/// Null ciphers and driver names, which deserve a word of their own.
fn refuse_on_sight(text: &str) -> Result<(), CipherError> {
    let lower = text.to_ascii_lowercase();
    if lower.contains("null") {
        return Err(CipherError::Null);
    }
    let implementation = [
        "generic", "aesni", "asm", "avx", "avx2", "sse2", "ce", "neon", "x86",
    ];
    if lower.contains(['(', ')', '_'])
        || lower.starts_with("capi:")
        || lower.split('-').any(|part| implementation.contains(&part))
    {
        return Err(CipherError::DriverName(excerpt(text)));
    }
    Ok(())
}

/// Enough of a name for a message, however long the header made it.
fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_specification_reads_back() {
        let mut count = 0;
        for cipher in BlockCipher::ALL {
            for mode in [Mode::Xts, Mode::Cbc] {
                for iv in [
                    IvGenerator::Plain,
                    IvGenerator::Plain64,
                    IvGenerator::Plain64Be,
                    IvGenerator::EssivSha256,
                ] {
                    let spec = CipherSpec { cipher, mode, iv };
                    let (name, rest) = spec.luks1_names();
                    let expected = (mode, iv) != (Mode::Xts, IvGenerator::EssivSha256);
                    assert_eq!(
                        CipherSpec::parse(&spec.to_string()).is_ok(),
                        expected,
                        "{spec}"
                    );
                    if expected {
                        assert_eq!(CipherSpec::parse(&spec.to_string()).unwrap(), spec);
                        assert_eq!(CipherSpec::from_luks1(&name, &rest).unwrap(), spec);
                        spec.check_key_size(spec.default_key_size()).unwrap();
                        count += 1;
                    }
                }
            }
        }
        assert_eq!(count, 28);
    }

    #[test]
    fn qemu_spelling_is_read() {
        let spec = CipherSpec::from_luks1("aes", "xts-plain64:sha256").unwrap();
        assert_eq!(spec, CipherSpec::AES_XTS_PLAIN64);
        assert!(matches!(
            CipherSpec::from_luks1("aes", "xts-plain64:bogus"),
            Err(CipherError::Unknown(_))
        ));
    }

    #[test]
    fn each_refusal_has_its_own_variant() {
        for null in [
            "cipher_null-ecb",
            "null",
            "cipher_null-ecb-plain",
            "ecb(cipher_null)",
            "NULL-cbc-plain",
        ] {
            assert_eq!(CipherSpec::parse(null), Err(CipherError::Null), "{null}");
        }
        for driver in [
            "__driver-xts-aes-aesni",
            "capi:xts(aes)-plain64",
            "xts(aes)-plain64",
            "aes-generic-xts-plain64",
            "xts-aes-aesni-plain64",
            "xts_aes-plain64",
        ] {
            assert!(
                matches!(CipherSpec::parse(driver), Err(CipherError::DriverName(_))),
                "{driver}"
            );
        }
        for unknown in [
            "",
            "-",
            "--",
            "aes",
            "aes-xts",
            "aes-xts-",
            "aes-xts-plain128",
            "aes-ecb",
            "des-cbc-plain",
            "aes-cbc-essiv:sha1",
            "aes-xts-essiv:sha256",
            "aes-xts-plain64-more",
            "AES-xts-plain64",
            "aes-xts-plain64 ",
            "aes:64-cbc-lmk",
            "aes-lrw-benbi",
            "aes-xts-random",
        ] {
            assert!(
                matches!(CipherSpec::parse(unknown), Err(CipherError::Unknown(_))),
                "{unknown}"
            );
        }
        assert!(matches!(
            CipherSpec::from_luks1("aes-xts", "plain64"),
            Err(CipherError::Unknown(_))
        ));
    }

    #[test]
    fn key_sizes_are_those_of_the_mode() {
        let cbc = CipherSpec::parse("aes-cbc-essiv:sha256").unwrap();
        for (spec, good) in [
            (CipherSpec::AES_XTS_PLAIN64, &[32, 64][..]),
            (cbc, &[16, 24, 32][..]),
        ] {
            for bytes in 0..200 {
                assert_eq!(
                    spec.check_key_size(bytes).is_ok(),
                    good.contains(&bytes),
                    "{spec} {bytes}"
                );
            }
        }
    }
}
