//! The layout of raw volumes: consecutive sectors, which start at some byte of the storage.

use std::fmt;
use std::sync::Arc;

use crate::backend::Backend;
use crate::crypt::IvSector;

/// Consecutive sectors.
pub(crate) struct Linear {
    /// The storage that holds the sectors.
    pub(crate) storage: Arc<dyn Backend>,
    /// The offset of the first sector.
    pub(crate) start: u64,
    /// The IV of the first sector.
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
    /// The place and the IV of the sector at an offset of the volume.
    pub(crate) fn place(&self, offset: u64) -> (u64, IvSector) {
        (self.start + offset, self.first_iv.after_bytes(offset))
    }
}
