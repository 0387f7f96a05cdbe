//! Whether a storage answers from memory or lets its callers wait: a moving average of how long calls took beyond
//! what their bytes cost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What a byte may cost without anybody waiting, in nanoseconds: copies, encryption, and some more.
const OF_A_BYTE: u64 = 1;
/// Over this average the storage waits, in nanoseconds: several times what a call from memory takes.
const WAITS_OVER: u64 = 40_000;
/// Under this one it does no more.
const ANSWERS_UNDER: u64 = 15_000;
/// One call counts for no more than this, so that a thread that was not run for a while is no slow storage.
const MOST: u64 = 2_000_000;
/// The newest call's share of the average is one in this many.
const SHARE: u64 = 8;

/// The average, with the verdict in the lowest bit: whoever waits keeps waiting until it is well under the limit.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

impl Pace {
    /// Whether calls wait.
    pub(super) fn waits(&self) -> bool {
        self.0.load(Ordering::Relaxed) & 1 == 1
    }

    /// Does `work` on so many bytes, and takes its time.
    pub(super) fn of<T>(&self, bytes: usize, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.learn(took.saturating_sub(OF_A_BYTE * bytes as u64));
        done
    }

    /// Two who learn at once may lose one's time, which an average can bear.
    fn learn(&self, waited: u64) {
        let before = self.0.load(Ordering::Relaxed);
        let average = (before - before / SHARE + waited.min(MOST) / SHARE) & !1;
        let limit = if before & 1 == 1 {
            ANSWERS_UNDER
        } else {
            WAITS_OVER
        };
        self.0
            .store(average | u64::from(average > limit), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_that_waits_is_noticed_and_forgiven() {
        let pace = Pace::default();
        (0..100).for_each(|_| pace.learn(3_000));
        assert!(!pace.waits());
        pace.learn(10_000_000);
        assert!(pace.waits());
        (0..100).for_each(|_| pace.learn(20_000));
        assert!(pace.waits());
        (0..100).for_each(|_| pace.learn(3_000));
        assert!(!pace.waits());
    }

    #[test]
    fn a_call_counts_for_what_it_took_beyond_its_bytes() {
        let pace = Pace::default();
        pace.of(1 << 30, || {
            std::thread::sleep(std::time::Duration::from_millis(5))
        });
        assert!(!pace.waits());
        pace.of(0, || {
            std::thread::sleep(std::time::Duration::from_millis(5))
        });
        assert!(pace.waits());
    }
}
