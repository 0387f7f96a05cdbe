//! The objects that are used in a TPM: the primary key under which secrets are sealed, and sealed
//! secrets.
//!
//! Reference: TPM 2.0 Library, part 2, section 12.2 (public areas). The templates are those of
//! systemd: with another one, the TPM derives another key.

use super::crypto::{self, PublicKey};
use super::error::Tpm2Error;
use super::wire::{Reader, Writer, code};

/// fixedTPM, fixedParent: the object cannot leave this TPM.
const STAYS: u32 = 0x12;
/// sensitiveDataOrigin, userWithAuth, restricted, decrypt: a key that only protects other objects.
const STORAGE: u32 = 0x3_0060;

/// The algorithm of the primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PrimaryAlgorithm {
    Ecc,
    Rsa,
}

impl PrimaryAlgorithm {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ecc => "ecc",
            Self::Rsa => "rsa",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        let mut all = [Self::Ecc, Self::Rsa].into_iter();
        all.find(|algorithm| algorithm.name() == name)
    }

    /// The template of the key, a `TPMT_PUBLIC`.
    pub(super) fn template(self) -> Vec<u8> {
        let kind = match self {
            Self::Ecc => code::ECC,
            Self::Rsa => code::RSA,
        };
        let writer = Writer::new()
            .u16(kind)
            .u16(code::SHA256)
            .u32(STAYS | STORAGE)
            .sized(&[])
            .bytes(&symmetric())
            .u16(code::NULL);
        match self {
            Self::Ecc => writer.u16(code::P256).u16(code::NULL).sized(&[]).sized(&[]),
            Self::Rsa => writer.u16(2048).u32(0).sized(&[]),
        }
        .into_bytes()
    }
}

/// AES-128 in CFB mode, a `TPMT_SYM_DEF`.
pub(super) fn symmetric() -> Vec<u8> {
    let writer = Writer::new().u16(code::AES).u16(128);
    writer.u16(code::CFB).into_bytes()
}

/// The template of a sealed secret with this policy, a `TPMT_PUBLIC`.
pub(super) fn sealed_template(policy: &[u8]) -> Vec<u8> {
    Writer::new()
        .u16(code::KEYED_HASH)
        .u16(code::SHA256)
        .u32(STAYS)
        .sized(policy)
        .u16(code::NULL)
        .sized(&[])
        .into_bytes()
}

/// The name of an object with this public area.
pub(super) fn name_of(public: &[u8]) -> Result<Vec<u8>, Tpm2Error> {
    let mut reader = Reader::new(public);
    reader.u16()?;
    match reader.u16()? {
        code::SHA256 => {
            let hash = crypto::sha256(&[public]);
            Ok(Writer::new().u16(code::SHA256).bytes(&hash).into_bytes())
        }
        _ => Err(Tpm2Error::Unsupported(
            "an object whose name is not made with SHA-256",
        )),
    }
}

/// The public key of a storage key with this public area, a `TPMT_PUBLIC`.
pub(super) fn storage_key(public: &[u8]) -> Result<PublicKey, Tpm2Error> {
    const OTHER: Tpm2Error = Tpm2Error::Unsupported("a storage key of another kind");
    let mut reader = Reader::new(public);
    let kind = reader.u16()?;
    let hash = reader.u16()?;
    let _attributes = reader.u32()?;
    let _policy = reader.sized()?;
    let protection = reader.take(symmetric().len())?;
    let scheme = reader.u16()?;
    if (hash, scheme) != (code::SHA256, code::NULL) || protection != symmetric() {
        return Err(OTHER);
    }
    let key = match kind {
        code::ECC => {
            if (reader.u16()?, reader.u16()?) != (code::P256, code::NULL) {
                return Err(OTHER);
            }
            let x = reader.sized()?.to_vec();
            let y = reader.sized()?.to_vec();
            PublicKey::Ecc { x, y }
        }
        code::RSA => {
            let (bits, exponent) = (reader.u16()?, reader.u32()?);
            if bits != 2048 || ![0, 65537].contains(&exponent) {
                return Err(OTHER);
            }
            let modulus = reader.sized()?.to_vec();
            PublicKey::Rsa { modulus }
        }
        _ => return Err(OTHER),
    };
    reader.end()?;
    Ok(key)
}

/// A sealed secret outside of the TPM: its encrypted part and its public part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    /// The bytes of a `TPM2B_PRIVATE`.
    pub(super) private: Vec<u8>,
    /// A `TPMT_PUBLIC`.
    pub(super) public: Vec<u8>,
}

impl Blob {
    /// Reads a `TPM2B_PRIVATE` and a `TPM2B_PUBLIC`, as systemd stores them.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Tpm2Error> {
        let invalid = |_| Tpm2Error::Token("tpm2-blob is no sealed object".into());
        let mut reader = Reader::new(bytes);
        let private = reader.sized().map_err(invalid)?.to_vec();
        let public = reader.sized().map_err(invalid)?.to_vec();
        if !reader.rest().is_empty() {
            return Err(Tpm2Error::Unsupported(
                "it was sealed with the public key of the TPM, outside of the TPM",
            ));
        }
        Ok(Self { private, public })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let writer = Writer::new().sized(&self.private);
        writer.sized(&self.public).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_of_the_templates_are_read() {
        let mut ecc = PrimaryAlgorithm::Ecc.template();
        ecc.truncate(ecc.len() - 4);
        let ecc = Writer::new().bytes(&ecc).sized(&[1; 32]).sized(&[2; 32]);
        let key = storage_key(&ecc.into_bytes()).unwrap();
        let (x, y) = (vec![1; 32], vec![2; 32]);
        assert_eq!(key, PublicKey::Ecc { x, y });

        let mut rsa = PrimaryAlgorithm::Rsa.template();
        rsa.truncate(rsa.len() - 2);
        let rsa = Writer::new().bytes(&rsa).sized(&[3; 256]).into_bytes();
        let modulus = vec![3; 256];
        assert_eq!(storage_key(&rsa).unwrap(), PublicKey::Rsa { modulus });

        for cut in 0..rsa.len() {
            assert!(storage_key(&rsa[..cut]).is_err(), "{cut} bytes");
        }
        assert!(storage_key(&[&rsa[..], b"x"].concat()).is_err());
        assert!(storage_key(&sealed_template(&[0; 32])).is_err());
    }

    #[test]
    fn a_blob_has_two_parts() {
        let blob = Blob {
            private: vec![1; 10],
            public: vec![2; 20],
        };
        let bytes = blob.to_bytes();
        assert_eq!(Blob::read(&bytes).unwrap(), blob);
        for cut in 0..bytes.len() {
            assert!(matches!(
                Blob::read(&bytes[..cut]),
                Err(Tpm2Error::Token(_))
            ));
        }
        let three = [&bytes[..], b"\0\x01x"].concat();
        assert!(matches!(Blob::read(&three), Err(Tpm2Error::Unsupported(_))));
    }
}
