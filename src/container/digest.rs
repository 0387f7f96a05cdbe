//! Digests of keys. With a digest, a header can verify a key without storing it.
//!
//! References: LUKS1 On-Disk Format 1.2.3, section 4.3; LUKS2 On-Disk Format 1.1, section 3.4. A
//! digest is PBKDF2 of the key with a random salt. A header is public, and so are its digests.

use luksmith_formats::{FormatError, Hash, Limits, luks1, luks2};

use crate::Interrupt;
use crate::kdf::{self, KdfError};
use crate::secret::{LockedBytes, VolumeKey};

/// The size of the salt of a new digest, in bytes.
const SALT: usize = 32;

/// The size of a digest in LUKS1, in bytes, with every hash.
const SHORT: usize = 20;

/// A digest of a key, as a header of either version stores it.
#[derive(Clone, Debug)]
pub(super) struct KeyDigest {
    pub(super) hash: Hash,
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) digest: Vec<u8>,
}

impl KeyDigest {
    /// A new digest of `key` with a random salt.
    pub(super) fn new(
        key: &VolumeKey,
        hash: Hash,
        iterations: u32,
        interrupt: &Interrupt,
    ) -> Result<Self, KdfError> {
        let mut salt = vec![0; SALT];
        crate::secret::random(&mut salt).map_err(KdfError::Random)?;
        let mut digest = vec![0; hash.size()];
        kdf::pbkdf2(
            hash,
            key.as_bytes(),
            &salt,
            iterations,
            &mut digest,
            interrupt,
        )?;
        Ok(Self {
            hash,
            iterations,
            salt,
            digest,
        })
    }

    /// The digest of the volume key in a LUKS1 header.
    pub(super) fn of_luks1(header: &luks1::Header) -> Result<Self, FormatError> {
        Ok(Self {
            hash: header.hash()?,
            iterations: header.digest_iterations,
            salt: header.digest_salt.to_vec(),
            digest: header.digest.to_vec(),
        })
    }

    /// One of the digests in a LUKS2 header.
    pub(super) fn of_luks2(digest: &luks2::Digest) -> Self {
        Self {
            hash: digest.hash,
            iterations: digest.iterations,
            salt: digest.salt.clone(),
            digest: digest.digest.clone(),
        }
    }

    /// This digest as an object of a LUKS2 header, with the keyslots and segments of its key.
    pub(super) fn into_luks2(self, keyslots: Vec<u32>, segments: Vec<u32>) -> luks2::Digest {
        luks2::Digest {
            keyslots,
            segments,
            hash: self.hash,
            iterations: self.iterations,
            salt: self.salt,
            digest: self.digest,
        }
    }

    /// Whether both are the same digest, and so belong to the same key. Of the digest itself only
    /// the first 20 bytes are compared, since a LUKS1 header keeps only these. So a container is
    /// still recognised after a conversion.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.iterations == other.iterations
            && self.salt == other.salt
            && self.digest.get(..SHORT) == other.digest.get(..SHORT)
    }

    /// Refuses a digest that costs more than `limits` allow, or whose hash this build lacks.
    pub(super) fn check_cost(&self, limits: &Limits) -> Result<(), KdfError> {
        kdf::check_built(self.hash)?;
        Ok(limits.check_pbkdf2(self.iterations).map_err(|mut error| {
            error.field = "digest.iterations".into();
            error
        })?)
    }

    /// Whether this is the digest of `key`. The comparison takes the same time for every key.
    pub(super) fn agrees(
        &self,
        key: &VolumeKey,
        limits: &Limits,
        interrupt: &Interrupt,
    ) -> Result<bool, KdfError> {
        self.check_cost(limits)?;
        let mut computed = LockedBytes::new(self.digest.len())?;
        kdf::pbkdf2(
            self.hash,
            key.as_bytes(),
            &self.salt,
            self.iterations,
            &mut computed,
            interrupt,
        )?;
        Ok(bool::from(subtle::ConstantTimeEq::ct_eq(
            &*computed,
            self.digest.as_slice(),
        )))
    }
}
