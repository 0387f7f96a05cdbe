//! How many bytes of requests may be in memory at once, over all connections, beyond what each has by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One connection takes at most one in this many of all bytes, so that a client that reads no answers leaves some.
const SHARE: usize = 4;

/// The bytes that are left. Nobody waits for some: who gets none does with less, one piece after the other.
#[derive(Debug)]
pub(super) struct Budget {
    all: usize,
    left: AtomicUsize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            all: bytes,
            left: AtomicUsize::new(bytes),
        }
    }

    /// The part that one connection may have.
    pub(super) fn share(&self) -> Self {
        Self::new(self.all / SHARE)
    }

    /// So many bytes, until the answer is dropped.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        self.try_take(bytes).then(|| Held {
            budget: self.clone(),
            bytes,
        })
    }

    pub(super) fn try_take(&self, bytes: usize) -> bool {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            });
        taken.is_ok()
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Bytes of a budget, which are given back when this is dropped.
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
    fn no_more_is_given_than_there_is() {
        let budget = Budget::new(100);
        assert!(budget.try_take(60));
        assert!(!budget.try_take(41));
        assert!(budget.try_take(40));
        budget.give_back(60);
        assert!(budget.try_take(60));
        assert!(!budget.share().try_take(26));
    }

    #[test]
    fn what_is_held_no_more_can_be_taken_again() {
        let budget = Arc::new(Budget::new(100));
        let held = budget.hold(60);
        assert!(held.is_some() && budget.hold(41).is_none());
        drop(held);
        assert!(budget.hold(100).is_some());
    }
}
