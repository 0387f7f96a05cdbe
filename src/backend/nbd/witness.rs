//! How the export begins, as far as that is known and stable: what comes after a reconnection has to begin so too.
//!
//! A server that was started anew may hold another disk behind the same name, as large as the first. A volume begins with its header, which
//! no other has: with it a stranger's disk is told apart before anything is sent there. Learnt is from reads that are made
//! anyway. What we are changing ourselves, or have not flushed, says nothing: then any beginning is taken.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sectors::{Cipher, Sectors};

/// As much is looked at, in bytes; more where the export has larger blocks.
const LEN: u64 = 4096;

pub(super) struct Witness {
    len: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    beginning: Option<Sectors<Cipher>>,
    /// How often we have begun to change it.
    changes: u64,
    under_way: u64,
    /// The changes that a flush has covered.
    flushed: u64,
    /// A change has failed: the server may carry it out late.
    unsure: bool,
}

impl Witness {
    pub(super) fn new(block_size: u32) -> Self {
        Self {
            len: LEN.max(block_size.into()),
            state: Mutex::default(),
        }
    }

    // Nothing panics while it is held.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change of the range.
    pub(super) fn changing<T, E>(
        &self,
        range: &Range<u64>,
        change: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if range.start >= self.len || range.is_empty() {
            return change();
        }
        let mut state = self.state();
        state.beginning = None;
        state.changes += 1;
        state.under_way += 1;
        drop(state);
        let outcome = change();
        let mut state = self.state();
        state.under_way -= 1;
        state.unsure |= outcome.is_err();
        outcome
    }

    /// Before a flush or a read: what [`flushed`](Self::flushed) and [`learn`](Self::learn) hold what comes of it against. None
    /// where it would say nothing.
    pub(super) fn mark(&self) -> Option<u64> {
        let state = self.state();
        (state.under_way == 0 && !state.unsure).then_some(state.changes)
    }

    /// A flush went well.
    pub(super) fn flushed(&self, mark: Option<u64>) {
        let mut state = self.state();
        state.flushed = state.flushed.max(mark.unwrap_or(0));
    }

    /// A read of the beginning went well.
    pub(super) fn learn(&self, mark: Option<u64>, bytes: &[u8]) {
        let mut state = self.state();
        let stable = mark == Some(state.changes) && state.flushed == state.changes;
        if !stable || state.beginning.is_some() || bytes.is_empty() {
            return;
        }
        let len = usize::try_from(self.len).map_or(bytes.len(), |len| len.min(bytes.len()));
        state.beginning = Some(super::link::copy_of(&bytes[..len]));
    }

    /// How many bytes are known.
    pub(super) fn len(&self) -> Option<usize> {
        self.state().beginning.as_ref().map(Sectors::len)
    }

    /// Whether an export that begins so may be the same.
    pub(super) fn agrees(&self, bytes: &[u8]) -> bool {
        let state = self.state();
        let known = state.beginning.as_ref();
        known.is_none_or(|known| known.as_slice() == bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_held_against_what_comes() {
        let witness = Witness::new(512);
        assert!(witness.agrees(&[2; 4096]));
        witness.learn(witness.mark(), &[1; 8192]);
        assert_eq!(witness.len(), Some(4096));
        assert!(witness.agrees(&[1; 4096]));
        assert!(!witness.agrees(&[2; 4096]));
        // Elsewhere anything may be changed.
        witness.changing(&(4096..8192), || Ok::<_, ()>(())).unwrap();
        assert!(!witness.agrees(&[2; 4096]));
    }

    #[test]
    fn our_own_changes_count_once_they_are_flushed() {
        let witness = Witness::new(1);
        let read = |bytes| witness.learn(witness.mark(), bytes);
        read(&[1; 4096]);
        let before = witness.mark();
        witness.changing(&(0..512), || Ok::<_, ()>(())).unwrap();
        assert!(witness.agrees(&[2; 4096]));
        read(&[2; 4096]);
        assert_eq!(witness.len(), None, "it is not flushed");
        witness.flushed(before);
        read(&[2; 4096]);
        assert_eq!(witness.len(), None, "the flush was asked for before");
        witness.flushed(witness.mark());
        read(&[2; 4096]);
        assert!(!witness.agrees(&[1; 4096]));
    }

    #[test]
    fn after_a_failed_change_nothing_is_sure() {
        let witness = Witness::new(1);
        witness
            .changing(&(0..512), || Err::<(), _>(()))
            .unwrap_err();
        witness.flushed(witness.mark());
        witness.learn(witness.mark(), &[1; 4096]);
        assert_eq!(witness.len(), None);
    }
}
