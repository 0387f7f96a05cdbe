//! Locks on ranges of a volume, shared and exclusive, given in the order in which they are asked for.
//!
//! Who asks waits for the earlier ones that do not agree with him, whether they have their lock or wait
//! themselves: nobody starves, and as everyone asks for one range alone, nobody waits in a circle.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The ranges in use.
#[derive(Default)]
pub(super) struct RangeLocks {
    asked: Mutex<Asked>,
    released: Condvar,
}

#[derive(Default)]
struct Asked {
    /// Those who have a lock and those who wait, in the order in which they came.
    queue: Vec<Ask>,
    next_number: u64,
    waiting: usize,
}

struct Ask {
    number: u64,
    range: Range<u64>,
    exclusive: bool,
}

impl Ask {
    fn agrees(&self, other: &Self) -> bool {
        let apart = self.range.end.min(other.range.end) <= self.range.start.max(other.range.start);
        apart || !(self.exclusive || other.exclusive)
    }
}

impl Asked {
    fn is_free(&self, number: u64) -> bool {
        let Some(place) = self.queue.iter().position(|ask| ask.number == number) else {
            return true;
        };
        let (earlier, from_here) = self.queue.split_at(place);
        from_here
            .first()
            .is_none_or(|ask| earlier.iter().all(|other| ask.agrees(other)))
    }
}

impl RangeLocks {
    /// Waits until nobody has the range exclusively, and shares it until the answer is dropped.
    pub(super) fn share(&self, range: Range<u64>) -> RangeGuard<'_> {
        self.ask(range, false)
    }

    /// Waits until nobody has any of the range, and has it alone until the answer is dropped.
    pub(super) fn exclude(&self, range: Range<u64>) -> RangeGuard<'_> {
        self.ask(range, true)
    }

    fn ask(&self, range: Range<u64>, exclusive: bool) -> RangeGuard<'_> {
        let mut asked = self.asked();
        let number = asked.next_number;
        asked.next_number += 1;
        asked.queue.push(Ask {
            number,
            range,
            exclusive,
        });
        while !asked.is_free(number) {
            asked.waiting += 1;
            asked = self
                .released
                .wait(asked)
                .unwrap_or_else(PoisonError::into_inner);
            asked.waiting -= 1;
        }
        RangeGuard {
            locks: self,
            number,
        }
    }

    // Nothing panics while it is held.
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A range in use, until it is dropped.
pub(super) struct RangeGuard<'a> {
    locks: &'a RangeLocks,
    number: u64,
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut asked = self.locks.asked();
        asked.queue.retain(|ask| ask.number != self.number);
        if asked.waiting > 0 {
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
    fn readers_share_and_ranges_apart_do_not_meet() {
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
                        let _alone = locks.exclude(n..n + 8);
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    }
                });
            }
        });
        assert!(locks.asked().queue.is_empty());
    }

    #[test]
    fn a_writer_is_not_passed_by_later_readers() {
        let locks = RangeLocks::default();
        let mut asked = locks.asked();
        let ask = |number, exclusive| Ask {
            number,
            range: 0..512,
            exclusive,
        };
        asked.queue = vec![ask(0, false), ask(1, true), ask(2, false)];
        assert!(asked.is_free(0));
        assert!(!asked.is_free(1));
        assert!(!asked.is_free(2));
        asked.queue.remove(0);
        assert!(asked.is_free(1));
        assert!(!asked.is_free(2));
    }
}
