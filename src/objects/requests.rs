//! How many requests were sent to the store.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many requests were sent to the store, also those that were sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requests {
    /// Creations of objects.
    pub creations: u64,
    /// Reads of objects, or of parts of them.
    pub reads: u64,
    /// Deletions of objects.
    pub deletions: u64,
    /// Lists. Those of many objects are several requests.
    pub lists: u64,
}

/// How many requests were sent.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) creations: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) deletions: AtomicU64,
    pub(super) lists: AtomicU64,
}

impl Sent {
    pub(super) fn requests(&self) -> Requests {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Requests {
            creations: count(&self.creations),
            reads: count(&self.reads),
            deletions: count(&self.deletions),
            lists: count(&self.lists),
        }
    }
}

pub(super) fn count(of: &AtomicU64) {
    of.fetch_add(1, Ordering::Relaxed);
}
