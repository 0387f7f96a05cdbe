//! Sectors one after the other, from some byte of the storage on.

use std::fmt;
use std::sync::Arc;

use crate::backend::Backend;
use crate::crypt::IvSector;

/// A row of sectors.
pub(crate) struct Linear {
    /// What holds them.
    pub(crate) storage: Arc<dyn Backend>,
    /// Where the first one begins.
    pub(crate) start: u64,
    /// The IV of the first one.
    pub(crate) first_iv: IvSector,
}

impl fmt::Debug for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linear")
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

impl Linear {
    /// Where the sector at a byte of the volume lies, and its IV.
    pub(crate) fn place(&self, offset: u64) -> (u64, IvSector) {
        (self.start + offset, self.first_iv.after_bytes(offset))
    }
}
