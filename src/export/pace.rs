//! Whether the storage answers from memory or makes its callers wait: a moving average of the time
//! that calls take beyond what their bytes cost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Time for each byte that does not count as waiting, in nanoseconds. It covers copies and
/// encryption, with a margin.
const PER_BYTE: u64 = 1;
/// The storage waits if the average is above this, in nanoseconds: several times what a call takes
/// that is answered from memory.
const WAITS_ABOVE: u64 = 40_000;
/// A storage that waits does so until the average is below this, in nanoseconds.
const ANSWERS_BELOW: u64 = 15_000;
/// The longest time that one call counts for, in nanoseconds.
const LONGEST: u64 = 2_000_000;
/// The longest time that a call counts for if none of the last [`REMEMBERED`] calls took longer, in
/// nanoseconds: too little to exceed [`WAITS_ABOVE`]. A thread that was not scheduled for a while
/// does not make the storage look slow.
const LONGEST_ONCE: u64 = 250_000;
/// For how many calls a call is remembered that took longer than [`LONGEST_ONCE`].
const REMEMBERED: u64 = 64;
/// One part in this many of the average is the newest call.
const WEIGHT: u64 = 8;

/// The verdict in the lowest bit; then, in seven bits, for how many more calls a long one is
/// remembered; then the average.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

const MEMORY_SHIFT: u32 = 1;
const AVERAGE_SHIFT: u32 = 8;
const _: () = assert!(REMEMBERED < 1 << (AVERAGE_SHIFT - MEMORY_SHIFT));
const _: () = assert!(LONGEST_ONCE / WEIGHT < WAITS_ABOVE);

impl Pace {
    /// Whether calls wait.
    pub(super) fn waits(&self) -> bool {
        self.0.load(Ordering::Relaxed) & 1 == 1
    }

    /// Runs `work` on this many bytes and takes its time into account.
    pub(super) fn of<T>(&self, bytes: usize, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.add(took.saturating_sub(PER_BYTE * bytes as u64));
        done
    }

    /// Of two threads that call this at the same time, one may be ignored. An average can bear
    /// that.
    fn add(&self, waited: u64) {
        let state = self.0.load(Ordering::Relaxed);
        let before = state >> AVERAGE_SHIFT;
        let remembered = (state >> MEMORY_SHIFT) & ((1 << (AVERAGE_SHIFT - MEMORY_SHIFT)) - 1);
        let (longest, remembered) = match (waited > LONGEST_ONCE, remembered) {
            (true, 0) => (LONGEST_ONCE, REMEMBERED),
            (true, _) => (LONGEST, REMEMBERED),
            (false, remembered) => (LONGEST, remembered.saturating_sub(1)),
        };
        let average = before - before / WEIGHT + waited.min(longest) / WEIGHT;
        let limit = if state & 1 == 1 {
            ANSWERS_BELOW
        } else {
            WAITS_ABOVE
        };
        let state = average << AVERAGE_SHIFT | remembered << MEMORY_SHIFT;
        self.0
            .store(state | u64::from(average > limit), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_storage_is_noticed_and_forgiven() {
        let pace = Pace::default();
        (0..100).for_each(|_| pace.add(3_000));
        assert!(!pace.waits());
        (0..2).for_each(|_| pace.add(10_000_000));
        assert!(pace.waits());
        (0..100).for_each(|_| pace.add(20_000));
        assert!(pace.waits());
        (0..100).for_each(|_| pace.add(3_000));
        assert!(!pace.waits());
    }

    #[test]
    fn one_long_call_does_not_make_the_storage_slow() {
        let pace = Pace::default();
        for _ in 0..10 {
            (0..REMEMBERED).for_each(|_| pace.add(3_000));
            pace.add(10_000_000);
            assert!(!pace.waits());
        }
        // One of twenty, as of a disk whose content is mostly in memory.
        (0..19).for_each(|_| pace.add(3_000));
        pace.add(10_000_000);
        assert!(pace.waits());
    }

    #[test]
    fn only_the_time_beyond_the_cost_of_the_bytes_counts() {
        let pace = Pace::default();
        pace.of(1 << 30, || {
            std::thread::sleep(std::time::Duration::from_millis(5))
        });
        assert!(!pace.waits());
        for _ in 0..2 {
            pace.of(0, || {
                std::thread::sleep(std::time::Duration::from_millis(5))
            });
        }
        assert!(pace.waits());
    }
}
