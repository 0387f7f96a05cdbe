//! FIFO range locks: shared and exclusive locks on ranges of a volume.
//!
//! A request waits for every earlier request that conflicts with it, whether that request holds its
//! lock or waits for it. So no request starves. Each caller holds only one range at a time, so
//! there is no deadlock.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The locks of one volume.
#[derive(Default)]
pub(super) struct RangeLocks {
    requests: Mutex<Requests>,
    released: Condvar,
}

#[derive(Default)]
struct Requests {
    /// The requests that hold a lock or wait for one, in the order of their arrival.
    queue: Vec<Request>,
    next_number: u64,
    waiting: usize,
}

struct Request {
    number: u64,
    range: Range<u64>,
    exclusive: bool,
}

impl Request {
    fn is_compatible(&self, other: &Self) -> bool {
        let apart = self.range.end.min(other.range.end) <= self.range.start.max(other.range.start);
        apart || !(self.exclusive || other.exclusive)
    }
}

impl Requests {
    /// Whether no earlier request conflicts with this one.
    fn is_granted(&self, number: u64) -> bool {
        let Some(place) = self
            .queue
            .iter()
            .position(|request| request.number == number)
        else {
            return true;
        };
        let (earlier, from_here) = self.queue.split_at(place);
        from_here
            .first()
            .is_none_or(|request| earlier.iter().all(|other| request.is_compatible(other)))
    }
}

impl RangeLocks {
    /// Waits for a shared lock on the range.
    pub(super) fn share(&self, range: Range<u64>) -> RangeGuard<'_> {
        self.lock(range, false)
    }

    /// Waits for an exclusive lock on the range.
    pub(super) fn exclude(&self, range: Range<u64>) -> RangeGuard<'_> {
        self.lock(range, true)
    }

    fn lock(&self, range: Range<u64>, exclusive: bool) -> RangeGuard<'_> {
        let mut requests = self.requests();
        let number = requests.next_number;
        requests.next_number += 1;
        requests.queue.push(Request {
            number,
            range,
            exclusive,
        });
        while !requests.is_granted(number) {
            requests.waiting += 1;
            requests = self
                .released
                .wait(requests)
                .unwrap_or_else(PoisonError::into_inner);
            requests.waiting -= 1;
        }
        RangeGuard {
            locks: self,
            number,
        }
    }

    // No code panics while it holds this mutex.
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock on a range, which is released when it is dropped.
pub(super) struct RangeGuard<'a> {
    locks: &'a RangeLocks,
    number: u64,
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut requests = self.locks.requests();
        requests
            .queue
            .retain(|request| request.number != self.number);
        if requests.waiting > 0 {
            self.locks.released.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    #[test]
    fn shared_locks_and_separate_ranges_do_not_conflict() {
        let locks = RangeLocks::default();
        let _first = locks.share(0..1024);
        let _second = locks.share(512..2048);
        let _apart = locks.exclude(2048..4096);
        let _none = locks.exclude(100..100);
    }

    #[test]
    fn an_exclusive_range_has_one_owner() {
        let (locks, inside) = (RangeLocks::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for n in 0..4 {
                let (locks, inside) = (&locks, &inside);
                scope.spawn(move || {
                    for _ in 0..500 {
                        let _lock = locks.exclude(n..n + 8);
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    }
                });
            }
        });
        assert!(locks.requests().queue.is_empty());
    }

    #[test]
    fn later_readers_do_not_overtake_a_writer() {
        let locks = RangeLocks::default();
        let mut requests = locks.requests();
        let request = |number, exclusive| Request {
            number,
            range: 0..512,
            exclusive,
        };
        requests.queue = vec![request(0, false), request(1, true), request(2, false)];
        assert!(requests.is_granted(0));
        assert!(!requests.is_granted(1));
        assert!(!requests.is_granted(2));
        requests.queue.remove(0);
        assert!(requests.is_granted(1));
        assert!(!requests.is_granted(2));
    }
}
