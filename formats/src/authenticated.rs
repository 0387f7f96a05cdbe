//! The ciphers of dm-crypt whose sectors have tags, which dm-integrity keeps: authenticated
//! encryption of LUKS2 (section 3.3 of its specification, the member `integrity` of a segment).
//!
//! A cipher name is read against a closed list, as in [`cipher`](crate::cipher).

use alloc::format;
use alloc::string::String;
use core::fmt;

/// A cipher that encrypts a sector and makes a tag of it. Volumes with these are only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AuthenticatedCipher {
    /// AES-XTS whose IV is the number of the sector, and HMAC-SHA-256 of the ciphertext.
    AesXtsPlain64Hmac,
    /// AES-XTS with a random IV for each write of a sector, and HMAC-SHA-256 of the ciphertext.
    AesXtsRandomHmac,
    /// AES-GCM.
    AesGcmRandom,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20RandomPoly1305,
    /// AEGIS-128 (version 1.1 of the submission to CAESAR), which is not AEGIS-128L.
    Aegis128Random,
}

/// The bytes of a key of HMAC-SHA-256, which is the end of the volume key.
const HMAC_KEY: usize = 32;

impl AuthenticatedCipher {
    /// Every cipher.
    pub const ALL: [Self; 5] = [
        Self::AesXtsPlain64Hmac,
        Self::AesXtsRandomHmac,
        Self::AesGcmRandom,
        Self::ChaCha20RandomPoly1305,
        Self::Aegis128Random,
    ];

    /// The cipher with these two names in a header: `encryption`, and `type` of `integrity`.
    pub fn parse(encryption: &str, integrity: &str) -> Option<Self> {
        let named =
            |known: &Self| (known.encryption(), known.integrity()) == (encryption, integrity);
        Self::ALL.into_iter().find(named)
    }

    /// The cipher, as it is written in headers.
    pub fn encryption(self) -> &'static str {
        match self {
            Self::AesXtsPlain64Hmac => "aes-xts-plain64",
            Self::AesXtsRandomHmac => "aes-xts-random",
            Self::AesGcmRandom => "aes-gcm-random",
            Self::ChaCha20RandomPoly1305 => "chacha20-random",
            Self::Aegis128Random => "aegis128-random",
        }
    }

    /// What makes the tag, as it is written in headers.
    pub fn integrity(self) -> &'static str {
        match self {
            Self::AesXtsPlain64Hmac | Self::AesXtsRandomHmac => "hmac(sha256)",
            Self::AesGcmRandom | Self::Aegis128Random => "aead",
            Self::ChaCha20RandomPoly1305 => "poly1305",
        }
    }

    /// The sizes of volume keys in bytes, smallest first, with the key of the tags.
    pub fn key_sizes(self) -> &'static [usize] {
        match self {
            Self::AesXtsPlain64Hmac | Self::AesXtsRandomHmac => &[64, 80, 96],
            Self::AesGcmRandom => &[16, 24, 32],
            Self::ChaCha20RandomPoly1305 => &[32],
            Self::Aegis128Random => &[16],
        }
    }

    /// The bytes at the end of the volume key that are the key of the tags. With the other ciphers,
    /// encryption and tags have one key.
    pub fn tag_key_size(self) -> usize {
        match self {
            Self::AesXtsPlain64Hmac | Self::AesXtsRandomHmac => HMAC_KEY,
            Self::AesGcmRandom | Self::ChaCha20RandomPoly1305 | Self::Aegis128Random => 0,
        }
    }

    /// The bytes of the code that authenticates a sector.
    pub fn code_size(self) -> usize {
        match self {
            Self::AesXtsPlain64Hmac | Self::AesXtsRandomHmac => 32,
            Self::AesGcmRandom | Self::ChaCha20RandomPoly1305 | Self::Aegis128Random => 16,
        }
    }

    /// The bytes of the IV that is stored with the code. 0 if the IV is the number of the sector.
    pub fn iv_size(self) -> usize {
        match self {
            Self::AesXtsPlain64Hmac => 0,
            Self::AesXtsRandomHmac | Self::Aegis128Random => 16,
            Self::AesGcmRandom | Self::ChaCha20RandomPoly1305 => 12,
        }
    }

    /// The bytes that dm-integrity keeps of each sector: the code, and then the IV.
    pub fn tag_size(self) -> usize {
        self.code_size().saturating_add(self.iv_size())
    }

    /// The list of what is supported, for messages.
    pub(crate) fn names() -> String {
        let all = Self::ALL.map(|cipher| format!("{cipher}"));
        all.join(", ")
    }
}

impl fmt::Display for AuthenticatedCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {}", self.encryption(), self.integrity())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_no_others_do() {
        for cipher in AuthenticatedCipher::ALL {
            let (encryption, integrity) = (cipher.encryption(), cipher.integrity());
            assert_eq!(
                AuthenticatedCipher::parse(encryption, integrity),
                Some(cipher)
            );
            assert!(AuthenticatedCipher::names().contains(encryption));
        }
        for (encryption, integrity) in [
            ("aes-xts-plain64", "aead"),
            ("aes-xts-plain64", "hmac(sha512)"),
            ("aes-xts-plain64", "none"),
            ("aes-xts-plain", "hmac(sha256)"),
            ("aes-cbc-plain64", "hmac(sha256)"),
            ("aes-gcm-plain64", "aead"),
            ("aes-gcm-random", "poly1305"),
            ("aes-ccm-random", "aead"),
            ("aegis256-random", "aead"),
            ("chacha20-plain64", "poly1305"),
            ("", ""),
        ] {
            assert_eq!(
                AuthenticatedCipher::parse(encryption, integrity),
                None,
                "{encryption}"
            );
        }
    }

    #[test]
    fn the_sizes_are_those_that_cryptsetup_formats() {
        // The tag sizes of the superblocks in tests/vectors/integrity.json.
        let sizes = AuthenticatedCipher::ALL.map(AuthenticatedCipher::tag_size);
        assert_eq!(sizes, [32, 48, 28, 28, 32]);
        for cipher in AuthenticatedCipher::ALL {
            let smallest = cipher.key_sizes().first().unwrap();
            assert!(*smallest > cipher.tag_key_size());
        }
    }
}
