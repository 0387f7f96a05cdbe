//! The hash functions that LUKS headers may name.

use alloc::string::String;
use core::fmt;

/// A hash function. LUKS uses it for PBKDF2, the anti-forensic splitter, digests and checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hash {
    /// SHA-1, the default of old LUKS1 volumes.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256, the default.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// RIPEMD-160.
    Ripemd160,
    /// Whirlpool (the final version, ISO/IEC 10118-3:2004).
    Whirlpool,
    /// SM3 (GB/T 32905).
    Sm3,
    /// SHA3-224 (FIPS 202).
    Sha3_224,
    /// SHA3-256.
    Sha3_256,
    /// SHA3-384.
    Sha3_384,
    /// SHA3-512.
    Sha3_512,
    /// BLAKE2s with 256 bits (RFC 7693).
    Blake2s256,
    /// BLAKE2b with 512 bits (RFC 7693).
    Blake2b512,
}

/// The name of a hash that is not in the list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown hash \"{0}\"; known are sha1, sha224, sha256, sha384, sha512, ripemd160, whirlpool, \
     sm3, sha3-224, sha3-256, sha3-384, sha3-512, blake2s-256 and blake2b-512"
)]
pub struct UnknownHash(pub String);

impl Hash {
    /// Every hash, weakest family first.
    pub const ALL: [Self; 14] = [
        Self::Sha1,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
        Self::Ripemd160,
        Self::Whirlpool,
        Self::Sm3,
        Self::Sha3_224,
        Self::Sha3_256,
        Self::Sha3_384,
        Self::Sha3_512,
        Self::Blake2s256,
        Self::Blake2b512,
    ];

    /// Parses a name from a header. Case is ignored, since cryptsetup writes what the user typed.
    ///
    /// # Errors
    /// Returns [`UnknownHash`] for any other name.
    pub fn parse(name: &str) -> Result<Self, UnknownHash> {
        Self::ALL
            .into_iter()
            .find(|hash| hash.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownHash(name.chars().take(64).collect()))
    }

    /// The name as it is written in headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Ripemd160 => "ripemd160",
            Self::Whirlpool => "whirlpool",
            Self::Sm3 => "sm3",
            Self::Sha3_224 => "sha3-224",
            Self::Sha3_256 => "sha3-256",
            Self::Sha3_384 => "sha3-384",
            Self::Sha3_512 => "sha3-512",
            Self::Blake2s256 => "blake2s-256",
            Self::Blake2b512 => "blake2b-512",
        }
    }

    /// The length of the output in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Sha1 | Self::Ripemd160 => 20,
            Self::Sha224 | Self::Sha3_224 => 28,
            Self::Sha256 | Self::Sm3 | Self::Sha3_256 | Self::Blake2s256 => 32,
            Self::Sha384 | Self::Sha3_384 => 48,
            Self::Sha512 | Self::Whirlpool | Self::Sha3_512 | Self::Blake2b512 => 64,
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl core::str::FromStr for Hash {
    type Err = UnknownHash;

    fn from_str(name: &str) -> Result<Self, UnknownHash> {
        Self::parse(name)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn every_name_parses_back() {
        for hash in Hash::ALL {
            assert_eq!(Hash::parse(hash.name()), Ok(hash));
            assert_eq!(Hash::parse(&hash.name().to_ascii_uppercase()), Ok(hash));
        }
        for unknown in [
            "md5",
            "sha256 ",
            "",
            "stribog256",
            "blake2b",
            "sha3",
            "sha512-256",
        ] {
            assert!(Hash::parse(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn a_refusal_names_every_hash() {
        let text = UnknownHash("md5".into()).to_string();
        for hash in Hash::ALL {
            assert!(text.contains(hash.name()), "{hash}");
        }
    }
}
