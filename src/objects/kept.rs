//! What checkpoints know besides the state of the volume.

use std::collections::BTreeSet;

use luksmith_formats::objects::{Position, RootId};

/// A pack.
pub(super) type PackId = (RootId, u16);

/// What only one checkpoint at a time may change.
#[derive(Default)]
pub(super) struct Kept {
    /// What snapshots refer to.
    pub(super) segments: BTreeSet<Position>,
    pub(super) packs: BTreeSet<PackId>,
    pub(super) roots: BTreeSet<RootId>,
    /// The number of the last checkpoint of this epoch.
    pub(super) number: u32,
}

impl Kept {
    /// The next checkpoint of this epoch.
    pub(super) fn next(&self, epoch: u32) -> RootId {
        let number = self.number + 1;
        RootId { epoch, number }
    }
}
