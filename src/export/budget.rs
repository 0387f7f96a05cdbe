//! A limit for the bytes of requests that are in memory at once, over all connections, beyond what
//! each connection always may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One connection gets at most one part in this many, so that a client that reads no replies leaves
/// the rest to others.
const SHARES: usize = 4;

/// The bytes that are left. Nothing waits for them: a request that gets none is done in pieces.
#[derive(Debug)]
pub(super) struct Budget {
    total: usize,
    left: AtomicUsize,
}

impl Budget {
    /// A budget of this many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            total: bytes,
            left: AtomicUsize::new(bytes),
        }
    }

    /// A budget for one connection: its share of this one.
    pub(super) fn share(&self) -> Self {
        Self::new(self.total / SHARES)
    }

    /// Takes this many bytes until the returned value is dropped; `None` if fewer are left.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        self.try_take(bytes).then(|| Held {
            budget: self.clone(),
            bytes,
        })
    }

    /// Takes this many bytes if they are left. The caller gives them back.
    pub(super) fn try_take(&self, bytes: usize) -> bool {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            });
        taken.is_ok()
    }

    /// Gives back bytes that [`try_take`](Self::try_take) took.
    pub(super) fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Bytes of a budget, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_total_can_be_taken() {
        let budget = Budget::new(100);
        assert!(budget.try_take(60));
        assert!(!budget.try_take(41));
        assert!(budget.try_take(40));
        budget.give_back(60);
        assert!(budget.try_take(60));
        assert!(!budget.share().try_take(26));
    }

    #[test]
    fn held_bytes_are_given_back() {
        let budget = Arc::new(Budget::new(100));
        let held = budget.hold(60);
        assert!(held.is_some() && budget.hold(41).is_none());
        drop(held);
        assert!(budget.hold(100).is_some());
    }
}
