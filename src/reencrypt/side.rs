//! One of the two sides of a reencryption: where its data is, and how it is encrypted.

use luksmith_formats::luks2::CryptSegment;

use crate::crypt::{CryptError, IvSector, SectorCrypt};
use crate::secret::VolumeKey;
use crate::sectors::{Cipher, Plain, Sectors};

/// The data before or after a reencryption. Offsets count from the start of the data.
pub(super) struct Side {
    crypt: SectorCrypt,
    start: u64,
    first_iv: IvSector,
}

impl Side {
    pub(super) fn new(segment: &CryptSegment, key: &VolumeKey) -> Result<Self, CryptError> {
        Ok(Self {
            crypt: SectorCrypt::new(segment.encryption, segment.sector_size, key)?,
            start: segment.offset,
            first_iv: IvSector(segment.iv_tweak),
        })
    }

    /// The offset on the storage.
    pub(super) fn place(&self, at: u64) -> u64 {
        self.start + at
    }

    pub(super) fn decrypt(&self, at: u64, sectors: Sectors<Cipher>) -> Sectors<Plain> {
        self.crypt.decrypt(self.first_iv.after_bytes(at), sectors)
    }

    pub(super) fn encrypt(&self, at: u64, sectors: Sectors<Plain>) -> Sectors<Cipher> {
        self.crypt.encrypt(self.first_iv.after_bytes(at), sectors)
    }
}

/// Ciphertext of one side as that of the other one.
pub(super) fn convert(
    from: &Side,
    to: &Side,
    at: u64,
    sectors: Sectors<Cipher>,
) -> Sectors<Cipher> {
    to.encrypt(at, from.decrypt(at, sectors))
}
