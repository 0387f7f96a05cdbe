//! What a server has acknowledged and not flushed yet, so that it can be sent again after the connection broke: the server may have
//! lost it with its cache.
//!
//! A record is made before the change is sent, enters when the server acknowledges it, in the order of the acknowledgements, and
//! leaves when a flush that was sent later has been answered. Changes that overlap and are under way at the same time have no order
//! here, as they have none at the server; a [`Volume`](crate::volume::Volume) never has such.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::sectors::{ALIGNMENT, Cipher, Sectors};

/// The changes since the last flush. `None` of them where the server has no flush.
pub(super) struct Journal {
    state: Mutex<State>,
    less: Condvar,
    /// The most memory that the records take, in bytes.
    limit: usize,
}

struct State {
    acknowledged: VecDeque<(u64, Record)>,
    next: u64,
    /// What the records take, and those of changes under way.
    bytes: usize,
    /// Somebody flushes to make room.
    flushing: bool,
    /// No later flush may say that all went well.
    lost: bool,
}

/// A change that may have to be made again.
pub(super) struct Record {
    pub(super) offset: u64,
    pub(super) change: Change,
}

/// What was changed.
pub(super) enum Change {
    Bytes(Sectors<Cipher>),
    /// So many bytes were zeroed.
    Zeroes(u64),
}

/// The answer to who is about to change something.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Go on, with a record.
    There,
    /// Go on, with a record, and flush: there is not much room left.
    Scarce,
    /// Flush, and ask again.
    None,
    /// Go on without a record: it would be of no use.
    NotNeeded,
}

impl Record {
    /// What a record of so many bytes takes: the pool has powers of two up to 1 MiB.
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
            less: Condvar::new(),
            limit,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a record that costs so much. Who is told to flush says so by [`flushed`](Self::flushed) afterwards, however
    /// that went; others wait where there is no room.
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
                .less
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn flushed(&self) {
        self.state().flushing = false;
        self.less.notify_all();
    }

    /// The server has acknowledged a change.
    pub(super) fn enter(&self, record: Record) {
        let mut state = self.state();
        if state.lost {
            return;
        }
        let number = state.next;
        state.next += 1;
        state.acknowledged.push_back((number, record));
    }

    /// The change was not made.
    pub(super) fn give_up(&self, record: &Record) {
        let mut state = self.state();
        state.bytes = state.bytes.saturating_sub(record.takes());
        self.less.notify_all();
    }

    /// What a flush that is sent from now on covers.
    pub(super) fn mark(&self) -> u64 {
        self.state().next
    }

    /// A flush that was sent after this mark was taken went well.
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
        self.less.notify_all();
    }

    /// What was acknowledged cannot be made sure of any more.
    pub(super) fn lose(&self) {
        let mut state = self.state();
        state.lost = true;
        state.acknowledged.clear();
        self.less.notify_all();
    }

    pub(super) fn is_lost(&self) -> bool {
        self.state().lost
    }

    /// Looks at all that may have to be sent again, in order. Nothing enters meanwhile.
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
    fn a_flush_covers_what_was_acknowledged_before_it() {
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
        // The fifth is told to flush, and the others go on meanwhile.
        assert_eq!(asked[3..5], [Room::There, Room::Scarce]);
        assert!(asked[5..].iter().all(|room| *room == Room::There));
        journal.flushed();
        assert_eq!(journal.room(4096), Room::None);
        journal.cover(journal.mark());
        journal.flushed();
        assert_eq!(journal.room(4096), Room::There);
        // What is larger than all goes alone.
        journal.give_up(&record(0, 4096));
        assert_eq!(journal.room(1 << 20), Room::Scarce);
    }

    #[test]
    fn who_finds_no_room_waits_for_the_flush() {
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
    fn what_is_lost_stays_lost() {
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
