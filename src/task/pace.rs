//! How far a piece of work is, and how long it still takes, for front ends that show progress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use luksmith_formats::json::{Value, json};

use super::{Unit, Work};

/// How far a piece of work is. Several threads may report at the same time.
#[derive(Debug)]
pub struct Pace {
    work: Work,
    total: Option<u64>,
    done: AtomicU64,
    /// How much of that was done before the work began.
    before: AtomicU64,
    started: Instant,
}

impl Pace {
    /// Work begins now. `total` is how much there is, in the work's [`Unit`], if it is known.
    #[must_use]
    pub fn start(work: Work, total: Option<u64>) -> Self {
        Self {
            work,
            total,
            done: AtomicU64::new(0),
            before: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    /// The work.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work
    }

    /// How much there is to do, if it is known.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// This much more is done. Returns how much is done in all.
    pub fn advance(&self, by: u64) -> u64 {
        self.done.fetch_add(by, Ordering::Relaxed) + by
    }

    /// This much was done before the work began, and counts for no rate. Returns how much is done
    /// in all.
    pub fn resume(&self, done: u64) -> u64 {
        self.before.fetch_add(done, Ordering::Relaxed);
        self.advance(done)
    }

    /// The time since the work began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Bytes per second since the work began. Steps have no rate.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        let elapsed = self.elapsed().as_millis().max(1);
        let done = self.done.load(Ordering::Relaxed);
        let done = u128::from(done.saturating_sub(self.before.load(Ordering::Relaxed)));
        let rate = u64::try_from(done * 1000 / elapsed).unwrap_or(u64::MAX);
        (self.work.unit() == Unit::Bytes).then_some(rate)
    }

    /// The milliseconds that the rest takes at this rate.
    fn left_ms(&self, rate: Option<u64>) -> Option<u64> {
        let left = self
            .total?
            .saturating_sub(self.done.load(Ordering::Relaxed));
        let ms = (u128::from(left) * 1000).checked_div(rate?.into())?;
        u64::try_from(ms).ok()
    }

    /// The time that the rest takes at the present rate, if both are known.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.left_ms(self.rate()).map(Duration::from_millis)
    }

    /// The members of the event `phase`, with which the work begins.
    #[must_use]
    pub fn phase(work: Work, total: Option<u64>) -> Value {
        json!({
            "phase": work.phase(),
            "unit": work.unit().name(),
            "total": total,
        })
    }

    /// The members of the event `progress`.
    #[must_use]
    pub fn json(&self) -> Value {
        let rate = self.rate();
        json!({
            "phase": self.work.phase(),
            "unit": self.work.unit().name(),
            "done": self.done.load(Ordering::Relaxed),
            "total": self.total,
            "rate": rate,
            "eta_ms": self.left_ms(rate),
            "elapsed_ms": u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_the_time_follows_from_the_rate() {
        let bytes = Pace::start(Work::Copy, Some(300));
        assert_eq!(bytes.advance(100), 100);
        assert_eq!(bytes.left_ms(Some(50)), Some(4000));
        assert_eq!(bytes.left_ms(Some(0)), None);
        assert_eq!(bytes.advance(900), 1000);
        assert_eq!(bytes.left_ms(Some(50)), Some(0));
        assert_eq!(Pace::start(Work::Copy, None).left_ms(Some(50)), None);
        let steps = Pace::start(Work::Rotate, Some(3));
        steps.advance(1);
        assert_eq!((steps.rate(), steps.left()), (None, None));
        assert_eq!(steps.json()["done"].as_u64(), Some(1));
    }
}
