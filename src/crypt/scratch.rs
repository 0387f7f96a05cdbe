//! Bytes without a meaning, for measuring a cipher.

use super::{IvSector, SectorCrypt};
use crate::sectors::{Plain, Sectors};

/// Bytes that can be encrypted many times in a row. They never leave this value, so it does not
/// matter on which side they are.
pub(crate) struct Scratch(Sectors<Plain>);

impl Scratch {
    pub(crate) fn new(len: usize) -> Self {
        Self(Sectors::zeroed(len))
    }

    /// Does what [`SectorCrypt::encrypt`] does.
    pub(crate) fn encrypt(&mut self, crypt: &SectorCrypt) {
        let (tweaks, sector_size) = crypt.prepare(IvSector(0), self.0.len());
        crypt
            .cipher
            .encrypt(tweaks, sector_size, self.0.as_mut_slice());
        crypt.scrub_stack();
    }

    /// Does what [`SectorCrypt::decrypt`] does.
    pub(crate) fn decrypt(&mut self, crypt: &SectorCrypt) {
        let (tweaks, sector_size) = crypt.prepare(IvSector(0), self.0.len());
        crypt
            .cipher
            .decrypt(tweaks, sector_size, self.0.as_mut_slice());
        crypt.scrub_stack();
    }
}
