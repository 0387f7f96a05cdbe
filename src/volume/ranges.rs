//! FIFO range locks: shared and exclusive locks on ranges of a volume.
//!
//! A request waits for every earlier request that conflicts with it, whether that request holds its
//! lock or waits for it. So no request starves. Each caller holds only one range at a time, so
//! there is no deadlock.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The locks of one volume, or of one storage.
#[derive(Default)]
pub(crate) struct RangeLocks {
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
    granted: bool,
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

impl Requests {
    fn of(&mut self, number: u64) -> Option<&mut Request> {
        let mut all = self.queue.iter_mut();
        all.find(|request| request.number == number)
    }

    /// Whether another request has a lock that conflicts with this one.
    fn is_disturbed(&self, number: u64) -> bool {
        let own = self.queue.iter().find(|request| request.number == number);
        own.is_some_and(|own| {
            let mut others = self.queue.iter().filter(|other| other.number != number);
            others.any(|other| other.granted && !own.is_compatible(other))
        })
    }
}

impl RangeLocks {
    /// Waits for a shared lock on the range.
    pub(crate) fn share(&self, range: Range<u64>) -> RangeGuard<'_> {
        self.lock(range, false)
    }

    /// Waits for an exclusive lock on the range.
    pub(crate) fn exclude(&self, range: Range<u64>) -> RangeGuard<'_> {
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
            granted: false,
        });
        while !requests.is_granted(number) {
            requests = self.wait(requests);
        }
        if let Some(request) = requests.of(number) {
            request.granted = true;
        }
        RangeGuard {
            locks: self,
            number,
        }
    }

    fn wait<'a>(&self, mut requests: MutexGuard<'a, Requests>) -> MutexGuard<'a, Requests> {
        requests.waiting += 1;
        requests = self
            .released
            .wait(requests)
            .unwrap_or_else(PoisonError::into_inner);
        requests.waiting -= 1;
        requests
    }

    /// The number of locks that were asked for so far.
    pub(super) fn count(&self) -> u64 {
        self.requests().next_number
    }

    // No code panics while it holds this mutex.
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock on a range, which is released when it is dropped.
pub(crate) struct RangeGuard<'a> {
    locks: &'a RangeLocks,
    number: u64,
}

impl RangeGuard<'_> {
    /// Makes a shared lock exclusive, without giving it up. Later requests wait for it from now on,
    /// and this waits for the present owners of shared locks. Only one caller may do this at a
    /// time: two would wait for each other.
    pub(crate) fn make_exclusive(&mut self) {
        let mut requests = self.locks.requests();
        if let Some(request) = requests.of(self.number) {
            request.exclusive = true;
        }
        while requests.is_disturbed(self.number) {
            requests = self.locks.wait(requests);
        }
    }

    /// Makes an exclusive lock shared, without giving it up.
    pub(crate) fn make_shared(&mut self) {
        let mut requests = self.locks.requests();
        if let Some(request) = requests.of(self.number) {
            request.exclusive = false;
        }
        if requests.waiting > 0 {
            self.locks.released.notify_all();
        }
    }
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
    fn a_shared_lock_can_become_exclusive() {
        let (locks, inside) = (RangeLocks::default(), AtomicUsize::new(0));
        let others = || {
            for _ in 0..200 {
                let _lock = locks.share(4..12);
                inside.fetch_add(1, Ordering::SeqCst);
                thread::yield_now();
                inside.fetch_sub(1, Ordering::SeqCst);
            }
        };
        thread::scope(|scope| {
            scope.spawn(others);
            scope.spawn(others);
            for _ in 0..200 {
                let mut lock = locks.share(0..8);
                lock.make_exclusive();
                assert_eq!(inside.load(Ordering::SeqCst), 0);
                lock.make_shared();
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
            granted: false,
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
