//! The changes that the server has acknowledged and not flushed yet. They are sent again after the
//! connection broke, because the server may have lost them with its cache.
//!
//! A record is made before the change is sent. It enters the journal when the server acknowledges
//! the change, in the order of the acknowledgements, and leaves it when a flush that was sent later
//! has succeeded. Overlapping changes that are in flight at the same time have no order here, as
//! they have none at the server. A [`Volume`](crate::volume::Volume) never sends such changes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::sectors::{ALIGNMENT, Cipher, Sectors};

/// The acknowledged changes since the last flush. It stays empty if the server does not offer
/// flush.
pub(super) struct Journal {
    state: Mutex<State>,
    freed: Condvar,
    /// The most memory for the records, in bytes.
    limit: usize,
}

struct State {
    acknowledged: VecDeque<(u64, Record)>,
    next: u64,
    /// The memory of the records, and of those for changes in flight.
    bytes: usize,
    /// Whether a thread flushes to make room.
    flushing: bool,
    /// Whether a change was lost, so that every later flush has to fail.
    lost: bool,
}

/// A change that may have to be made again.
pub(super) struct Record {
    pub(super) offset: u64,
    pub(super) change: Change,
}

/// The content of a change.
pub(super) enum Change {
    Bytes(Sectors<Cipher>),
    /// This many zeroes.
    Zeroes(u64),
}

/// Whether there is room for the record of a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// There is. The change can be sent with a record.
    There,
    /// There is, but not much is left. The caller has to flush, and can then send the change with a
    /// record.
    Scarce,
    /// There is none. The caller has to flush and ask again.
    None,
    /// None is needed. The change can be sent without a record, which would be useless.
    NotNeeded,
}

impl Record {
    /// The memory of a record for this many bytes. The pool has buffers of powers of two up to 1
    /// MiB.
    pub(super) fn cost(len: usize) -> usize {
        let taken = if len <= 1 << 20 {
            len.next_power_of_two()
        } else {
            len
        };
        taken.max(ALIGNMENT)
    }

    pub(super) fn len(&self) -> u64 {
        match &self.change {
            Change::Bytes(bytes) => bytes.len() as u64,
            Change::Zeroes(len) => *len,
        }
    }

    /// The bytes that are sent for it.
    pub(super) fn payload(&self) -> u64 {
        match &self.change {
            Change::Bytes(bytes) => bytes.len() as u64,
            Change::Zeroes(_) => 0,
        }
    }

    fn takes(&self) -> usize {
        match &self.change {
            Change::Bytes(bytes) => Self::cost(bytes.len()),
            Change::Zeroes(_) => Self::cost(0),
        }
    }

    /// Whether both touch the same byte.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.offset < other.offset.saturating_add(other.len())
            && other.offset < self.offset.saturating_add(self.len())
    }
}

impl Journal {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(State {
                acknowledged: VecDeque::new(),
                next: 0,
                bytes: 0,
                flushing: false,
                lost: false,
            }),
            freed: Condvar::new(),
            limit,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves room for a record of this cost. A caller that has to flush calls
    /// [`flushed`](Self::flushed) afterwards, whether the flush succeeded or not. Other callers
    /// wait if there is no room.
    pub(super) fn room(&self, cost: usize) -> Room {
        let mut state = self.state();
        loop {
            if state.lost {
                return Room::NotNeeded;
            }
            let after = state.bytes + cost;
            if after <= self.limit || state.bytes == 0 {
                state.bytes = after;
                if after > self.limit / 2 && !state.flushing {
                    state.flushing = true;
                    return Room::Scarce;
                }
                return Room::There;
            }
            if !state.flushing {
                state.flushing = true;
                return Room::None;
            }
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A flush to make room has ended.
    pub(super) fn flushed(&self) {
        self.state().flushing = false;
        self.freed.notify_all();
    }

    /// Adds the record of a change that the server has acknowledged.
    pub(super) fn enter(&self, record: Record) {
        let mut state = self.state();
        if state.lost {
            return;
        }
        let number = state.next;
        state.next += 1;
        state.acknowledged.push_back((number, record));
    }

    /// Gives the room of a record back whose change was not acknowledged.
    pub(super) fn release(&self, record: &Record) {
        let mut state = self.state();
        state.bytes = state.bytes.saturating_sub(record.takes());
        self.freed.notify_all();
    }

    /// Marks the changes that a flush covers which is sent after this call.
    pub(super) fn mark(&self) -> u64 {
        self.state().next
    }

    /// Removes the changes before the mark: a flush that was sent after it has succeeded.
    pub(super) fn cover(&self, mark: u64) {
        let mut state = self.state();
        while state
            .acknowledged
            .front()
            .is_some_and(|(number, _)| *number < mark)
        {
            if let Some((_, record)) = state.acknowledged.pop_front() {
                state.bytes = state.bytes.saturating_sub(record.takes());
            }
        }
        self.freed.notify_all();
    }

    /// Records that an acknowledged change was lost.
    pub(super) fn lose(&self) {
        let mut state = self.state();
        state.lost = true;
        state.acknowledged.clear();
        self.freed.notify_all();
    }

    pub(super) fn is_lost(&self) -> bool {
        self.state().lost
    }

    /// Passes all records to `look`, in order. No record enters meanwhile.
    pub(super) fn replay<T>(&self, look: impl FnOnce(&VecDeque<(u64, Record)>) -> T) -> T {
        look(&self.state().acknowledged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64, len: usize) -> Record {
        let change = Change::Bytes(Sectors::zeroed(len));
        Record { offset, change }
    }

    fn offsets(journal: &Journal) -> Vec<u64> {
        journal.replay(|records| records.iter().map(|(_, record)| record.offset).collect())
    }

    #[test]
    fn a_flush_covers_changes_that_were_acknowledged_before_it() {
        let journal = Journal::new(1 << 20);
        for offset in [0, 1, 2] {
            assert_eq!(journal.room(Record::cost(512)), Room::There);
            journal.enter(record(offset, 512));
        }
        let mark = journal.mark();
        assert_eq!(journal.room(Record::cost(512)), Room::There);
        journal.enter(record(3, 512));
        assert_eq!(offsets(&journal), [0, 1, 2, 3]);
        journal.cover(mark);
        assert_eq!(offsets(&journal), [3]);
        journal.cover(journal.mark());
        assert_eq!(journal.state().bytes, 0);
    }

    #[test]
    fn memory_is_bounded() {
        let journal = Journal::new(8 << 12);
        let mut asked = Vec::new();
        for offset in 0..8 {
            asked.push(journal.room(Record::cost(4096)));
            journal.enter(record(offset, 4096));
        }
        // The fifth caller has to flush. Meanwhile the others find room.
        assert_eq!(asked[3..5], [Room::There, Room::Scarce]);
        assert!(asked[5..].iter().all(|room| *room == Room::There));
        journal.flushed();
        assert_eq!(journal.room(4096), Room::None);
        journal.cover(journal.mark());
        journal.flushed();
        assert_eq!(journal.room(4096), Room::There);
        // A record larger than the limit is admitted if there is no other.
        journal.release(&record(0, 4096));
        assert_eq!(journal.room(1 << 20), Room::Scarce);
    }

    #[test]
    fn a_caller_without_room_waits_for_the_flush() {
        let journal = Journal::new(4096);
        assert_eq!(journal.room(4096), Room::Scarce);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| journal.room(4096));
            journal.enter(record(0, 4096));
            journal.cover(journal.mark());
            journal.flushed();
            assert!(matches!(waiting.join().unwrap(), Room::Scarce));
        });
    }

    #[test]
    fn a_lost_change_stays_lost() {
        let journal = Journal::new(1 << 20);
        journal.room(4096);
        journal.enter(record(0, 4096));
        journal.lose();
        journal.enter(record(1, 4096));
        assert!(journal.is_lost() && offsets(&journal).is_empty());
        assert_eq!(journal.room(4096), Room::NotNeeded);
    }

    #[test]
    fn overlaps_are_found() {
        assert!(record(0, 512).overlaps(&record(511, 1)));
        assert!(record(511, 1).overlaps(&record(0, 512)));
        assert!(!record(0, 512).overlaps(&record(512, 512)));
        let zeroes = Record {
            offset: 100,
            change: Change::Zeroes(1 << 40),
        };
        assert!(zeroes.overlaps(&record(1 << 30, 1)));
    }
}
