//! Cipher specifications such as `aes-xts-plain64`, read against a closed list.
//!
//! A cipher name in a header never causes anything to be loaded. Null ciphers (CVE-2025-59054,
//! CVE-2025-58356), names of kernel drivers and unknown names are refused, each with its own error.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use crate::hash::Hash;

/// A block cipher, or for adiantum a stream cipher and a block cipher.
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
    /// CAST5 (RFC 2144), with blocks of 8 bytes. Its volumes are only read.
    Cast5,
    /// XChaCha12 and AES-256, for adiantum.
    XChaCha12Aes,
    /// XChaCha20 and AES-256, for adiantum.
    XChaCha20Aes,
}

/// The mode of operation: how the blocks of a sector are chained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// XTS (IEEE 1619). The key consists of two cipher keys.
    Xts,
    /// CBC, which starts again in each sector.
    Cbc,
    /// ECB: each block on its own. Its volumes are only read.
    Ecb,
    /// Adiantum (Crowley and Biggers, 2018): a whole sector is one block.
    Adiantum,
}

/// How an IV is made from a sector number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IvGenerator {
    /// None, as in `aes-ecb`. ECB also ignores all others.
    None,
    /// The low 32 bits of the sector number, little-endian, padded with zeros.
    Plain,
    /// The sector number in 64 bits, little-endian, padded with zeros.
    Plain64,
    /// The sector number in 64 bits, big-endian, in the last 8 bytes of the IV.
    Plain64Be,
    /// The plain64 IV, encrypted with the same cipher. The key is the hash of the volume key.
    Essiv(EssivHash),
}

/// The hash of ESSIV. Its output is the key of a cipher, so it has 256 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EssivHash {
    /// SHA-256.
    Sha256,
    /// SHA3-256.
    Sha3_256,
    /// SM3.
    Sm3,
}

/// Cipher, mode and IV generator of a data segment or a keyslot area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CipherSpec {
    /// The block cipher.
    pub cipher: BlockCipher,
    /// The mode of operation.
    pub mode: Mode,
    /// The IV generator.
    pub iv: IvGenerator,
}

/// Why volumes with a cipher are read, but neither made nor written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Weakness {
    /// Equal blocks of data are equal blocks of ciphertext.
    EqualBlocks,
    /// The blocks have 64 bits.
    SmallBlocks,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EqualBlocks => "anyone who reads the storage sees which blocks of data are equal",
            Self::SmallBlocks => {
                "with blocks of 64 bits, some gigabytes of ciphertext reveal parts of the data"
            }
        })
    }
}

/// Why a cipher specification or a key size is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CipherError {
    /// A cipher that does not encrypt.
    #[error(
        "a null cipher does not encrypt, and is refused (CVE-2025-59054: an attacker who can write \
         the header could have data written in the clear)"
    )]
    Null,
    /// The name of a kernel driver or template where a cipher is expected.
    #[error(
        "\"{0}\" names a kernel driver, not a cipher; names such as aes-xts-plain64 are accepted"
    )]
    DriverName(String),
    /// A cipher, mode, IV generator or combination that is not in the list.
    #[error(
        "unknown cipher \"{0}\"; known are aes, serpent, twofish and camellia, in xts or cbc, with \
         plain, plain64, plain64be, or essiv of sha256, sha3-256 or sm3; xchacha12,aes and \
         xchacha20,aes in adiantum, with plain, plain64 or plain64be; cast5 and ecb are only read"
    )]
    Unknown(String),
    /// A cipher whose volumes are only read.
    #[error("volumes with {spec} are only read: {weakness}")]
    OnlyRead {
        /// The cipher.
        spec: CipherSpec,
        /// Why.
        weakness: Weakness,
    },
    /// A key size that the cipher does not have.
    #[error("{spec} has no keys of {bytes} bytes")]
    KeySize {
        /// The cipher.
        spec: CipherSpec,
        /// The requested key size, in bytes.
        bytes: usize,
    },
}

impl BlockCipher {
    /// Every cipher.
    pub const ALL: [Self; 7] = [
        Self::Aes,
        Self::Serpent,
        Self::Twofish,
        Self::Camellia,
        Self::Cast5,
        Self::XChaCha12Aes,
        Self::XChaCha20Aes,
    ];

    /// The name as it is written in headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes => "aes",
            Self::Serpent => "serpent",
            Self::Twofish => "twofish",
            Self::Camellia => "camellia",
            Self::Cast5 => "cast5",
            Self::XChaCha12Aes => "xchacha12,aes",
            Self::XChaCha20Aes => "xchacha20,aes",
        }
    }
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Xts, Self::Cbc, Self::Ecb, Self::Adiantum];

    /// The name as it is written in headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xts => "xts",
            Self::Cbc => "cbc",
            Self::Ecb => "ecb",
            Self::Adiantum => "adiantum",
        }
    }
}

impl EssivHash {
    /// Every hash.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha3_256, Self::Sm3];

    /// The hash function.
    pub fn hash(self) -> Hash {
        match self {
            Self::Sha256 => Hash::Sha256,
            Self::Sha3_256 => Hash::Sha3_256,
            Self::Sm3 => Hash::Sm3,
        }
    }
}

impl IvGenerator {
    /// Every IV generator.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Plain,
        Self::Plain64,
        Self::Plain64Be,
        Self::Essiv(EssivHash::Sha256),
        Self::Essiv(EssivHash::Sha3_256),
        Self::Essiv(EssivHash::Sm3),
    ];

    /// The name as it is written in headers. It is empty if there is no IV.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Plain => "plain",
            Self::Plain64 => "plain64",
            Self::Plain64Be => "plain64be",
            Self::Essiv(EssivHash::Sha256) => "essiv:sha256",
            Self::Essiv(EssivHash::Sha3_256) => "essiv:sha3-256",
            Self::Essiv(EssivHash::Sm3) => "essiv:sm3",
        }
    }

    /// QEMU and libvirt write `plain64:sha256` when an IV hash was given with a generator that uses
    /// none. The kernel ignores that hash. It is ignored here too if it is a known hash.
    fn parse(name: &str) -> Option<Self> {
        let named = Self::ALL.into_iter().filter(|iv| *iv != Self::None);
        let known = |name| named.clone().find(|iv| iv.name() == name);
        match name.split_once(':') {
            Some((generator, hash)) if generator != "essiv" => {
                Hash::parse(hash).ok()?;
                known(generator)
            }
            _ => known(name),
        }
    }
}

impl CipherSpec {
    /// The default for new LUKS1 and LUKS2 volumes.
    pub const AES_XTS_PLAIN64: Self = Self {
        cipher: BlockCipher::Aes,
        mode: Mode::Xts,
        iv: IvGenerator::Plain64,
    };

    /// Every specification that is supported.
    pub fn all() -> impl Iterator<Item = Self> {
        let modes = |cipher| Mode::ALL.into_iter().map(move |mode| (cipher, mode));
        let ciphers = BlockCipher::ALL.into_iter().flat_map(modes);
        let all =
            ciphers.flat_map(|(cipher, mode)| IvGenerator::ALL.map(|iv| Self { cipher, mode, iv }));
        all.filter(Self::is_known)
    }

    /// Whether volumes use this combination of cipher, mode and IV generator.
    pub fn is_known(&self) -> bool {
        let mode = match self.cipher {
            BlockCipher::XChaCha12Aes | BlockCipher::XChaCha20Aes => self.mode == Mode::Adiantum,
            // XTS and ESSIV are for blocks of 16 bytes.
            BlockCipher::Cast5 => matches!(self.mode, Mode::Cbc | Mode::Ecb),
            BlockCipher::Aes
            | BlockCipher::Serpent
            | BlockCipher::Twofish
            | BlockCipher::Camellia => self.mode != Mode::Adiantum,
        };
        let iv = match self.iv {
            IvGenerator::None => self.mode == Mode::Ecb,
            IvGenerator::Plain | IvGenerator::Plain64 | IvGenerator::Plain64Be => true,
            IvGenerator::Essiv(_) => {
                self.cipher != BlockCipher::Cast5 && self.mode != Mode::Adiantum
            }
        };
        mode && iv
    }

    /// Why volumes with this cipher are only read, if they are.
    pub fn weakness(&self) -> Option<Weakness> {
        if self.mode == Mode::Ecb {
            Some(Weakness::EqualBlocks)
        } else if self.cipher == BlockCipher::Cast5 {
            Some(Weakness::SmallBlocks)
        } else {
            None
        }
    }

    /// Checks that volumes with this cipher are made and written to.
    ///
    /// # Errors
    /// Returns [`CipherError::OnlyRead`] if they are only read.
    pub fn check_writable(&self) -> Result<(), CipherError> {
        match self.weakness() {
            None => Ok(()),
            Some(weakness) => Err(CipherError::OnlyRead {
                spec: *self,
                weakness,
            }),
        }
    }

    /// Parses a specification as LUKS2 writes it: cipher, mode and IV generator, separated by
    /// dashes.
    ///
    /// # Errors
    /// Returns [`CipherError`] for a null cipher, the name of a kernel driver, or an unknown name.
    pub fn parse(text: &str) -> Result<Self, CipherError> {
        refuse_null_and_drivers(text)?;
        let unknown = || CipherError::Unknown(excerpt(text));
        let (name, mode) = text.split_once('-').ok_or_else(unknown)?;
        let cipher = BlockCipher::ALL
            .into_iter()
            .find(|cipher| cipher.name() == name)
            .ok_or_else(unknown)?;
        let (mode, iv) = match mode.split_once('-') {
            Some((mode, iv)) => (mode, IvGenerator::parse(iv).ok_or_else(unknown)?),
            None => (mode, IvGenerator::None),
        };
        let known = Mode::ALL.into_iter().find(|known| known.name() == mode);
        let mode = known.ok_or_else(unknown)?;
        let spec = Self { cipher, mode, iv };
        if spec.is_known() {
            Ok(spec)
        } else {
            Err(unknown())
        }
    }

    /// Parses the two fields of a LUKS1 header, such as `aes` and `xts-plain64`.
    ///
    /// # Errors
    /// The same as for [`parse`](Self::parse).
    pub fn from_luks1(name: &str, mode: &str) -> Result<Self, CipherError> {
        let whole = format!("{name}-{mode}");
        if name.contains('-') {
            refuse_null_and_drivers(&whole)?;
            return Err(CipherError::Unknown(excerpt(&whole)));
        }
        Self::parse(&whole)
    }

    /// The two fields of a LUKS1 header: cipher name, and mode with IV generator.
    pub fn luks1_names(&self) -> (String, String) {
        let mode = if self.iv == IvGenerator::None {
            self.mode.name().to_string()
        } else {
            format!("{}-{}", self.mode.name(), self.iv.name())
        };
        (self.cipher.name().to_string(), mode)
    }

    /// Checks that the cipher has keys of `bytes` bytes. For XTS this counts both halves of the
    /// key.
    ///
    /// # Errors
    /// Returns [`CipherError::KeySize`] if [`key_sizes`](Self::key_sizes) does not contain the
    /// size.
    pub fn check_key_size(&self, bytes: usize) -> Result<(), CipherError> {
        if self.key_sizes().contains(&bytes) {
            Ok(())
        } else {
            Err(CipherError::KeySize { spec: *self, bytes })
        }
    }

    /// The key sizes in bytes, smallest first. For XTS they count both halves of the key.
    pub fn key_sizes(&self) -> &'static [usize] {
        match (self.cipher, self.mode) {
            (BlockCipher::Cast5, _) => &[16],
            (_, Mode::Adiantum) => &[32],
            (_, Mode::Xts) => &[32, 48, 64],
            (_, Mode::Cbc | Mode::Ecb) => &[16, 24, 32],
        }
    }

    /// The key size of a new volume in bytes: the largest one.
    pub fn default_key_size(&self) -> usize {
        self.key_sizes().last().copied().unwrap_or(0)
    }
}

impl fmt::Display for CipherSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, mode) = self.luks1_names();
        write!(f, "{name}-{mode}")
    }
}

impl core::str::FromStr for CipherSpec {
    type Err = CipherError;

    fn from_str(text: &str) -> Result<Self, CipherError> {
        Self::parse(text)
    }
}

/// Refuses null ciphers and driver names, which have errors of their own.
fn refuse_null_and_drivers(text: &str) -> Result<(), CipherError> {
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

/// The first 64 characters of a name, for an error message. A header may contain a very long name.
fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_specification_parses_back() {
        let mut count = 0;
        for spec in CipherSpec::all() {
            let (name, rest) = spec.luks1_names();
            assert_eq!(CipherSpec::parse(&spec.to_string()), Ok(spec));
            assert_eq!(CipherSpec::from_luks1(&name, &rest), Ok(spec));
            spec.check_key_size(spec.default_key_size()).unwrap();
            count += 1;
        }
        // Ciphers with large blocks: xts and cbc with 6 IVs, ecb also without. cast5: cbc with 3
        // IVs, ecb also without. Adiantum: two ciphers with 3 IVs.
        assert_eq!(count, 4 * (6 + 6 + 7) + (3 + 4) + 2 * 3);
    }

    #[test]
    fn iv_hash_that_qemu_writes_is_ignored() {
        let spec = CipherSpec::from_luks1("aes", "xts-plain64:sha256").unwrap();
        assert_eq!(spec, CipherSpec::AES_XTS_PLAIN64);
        assert!(matches!(
            CipherSpec::from_luks1("aes", "xts-plain64:bogus"),
            Err(CipherError::Unknown(_))
        ));
        let essiv = CipherSpec::from_luks1("aes", "xts-essiv:sha256").unwrap();
        assert_eq!(essiv.iv, IvGenerator::Essiv(EssivHash::Sha256));
    }

    #[test]
    fn the_hash_of_essiv_is_named_in_it() {
        for hash in EssivHash::ALL {
            let name = format!("essiv:{}", hash.hash());
            assert_eq!(IvGenerator::Essiv(hash).name(), name);
            assert_eq!(hash.hash().size(), 32);
        }
    }

    #[test]
    fn cast5_and_ecb_are_only_read() {
        let mut weak = 0;
        for spec in CipherSpec::all() {
            let text = spec.to_string();
            let expected = text.starts_with("cast5-") || text.contains("-ecb");
            assert_eq!(spec.weakness().is_some(), expected, "{spec}");
            match spec.check_writable() {
                Ok(()) => assert!(!expected, "{spec}"),
                Err(error) => {
                    assert!(error.to_string().contains(&text), "{error}");
                    weak += 1;
                }
            }
        }
        assert_eq!(weak, 4 * 7 + 7);
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
            "aes-cbc",
            "aes-ecb-",
            "aes-ctr-plain64",
            "cast5-xts-plain64",
            "cast5-cbc-essiv:sha256",
            "cast5-cbc",
            "des-cbc-plain",
            "aes-cbc-essiv",
            "aes-cbc-essiv:sha1",
            "aes-cbc-essiv:sha512",
            "aes-cbc-essiv:SHA256",
            "aes-xts-essiv:sha256:sha256",
            "aes-xts-plain64-more",
            "AES-xts-plain64",
            "aes-xts-plain64 ",
            "aes:64-cbc-lmk",
            "aes-lrw-benbi",
            "aes-xts-random",
            "aes-adiantum-plain64",
            "xchacha12,aes-adiantum",
            "xchacha12,aes-adiantum-essiv:sha256",
            "xchacha12,aes-xts-plain64",
            "xchacha8,aes-adiantum-plain64",
            "xchacha12-adiantum-plain64",
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
        let cast5 = CipherSpec::parse("cast5-cbc-plain64").unwrap();
        let adiantum = CipherSpec::parse("xchacha12,aes-adiantum-plain64").unwrap();
        for (spec, good) in [
            (CipherSpec::AES_XTS_PLAIN64, &[32, 48, 64][..]),
            (cbc, &[16, 24, 32][..]),
            (cast5, &[16][..]),
            (adiantum, &[32][..]),
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
