//! The layout of raw volumes: consecutive sectors, which start at some byte of the storage.

use std::fmt;
use std::sync::Arc;

use super::side::{CipherRun, Side};
use crate::backend::Backend;

/// Consecutive sectors.
pub(crate) struct Linear {
    /// The storage that holds the sectors.
    pub(crate) storage: Arc<dyn Backend>,
    /// Where they are on it, and how they are encrypted.
    pub(crate) side: Side,
}

impl fmt::Debug for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linear")
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}

impl Linear {
    /// All sectors from an offset of the volume on.
    pub(crate) fn run(&self, offset: u64) -> CipherRun<'_> {
        CipherRun::of(&*self.storage, &self.side, offset)
    }
}
