//! How much was copied, how long it took, and how fast it was.

use std::fmt;
use std::time::{Duration, Instant};

use luksmith_formats::json::{Value, json};

use crate::task::size;

/// How much plaintext was copied, and how long it took, with the last flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Bytes of plaintext.
    pub bytes: u64,
    /// The time from the first read to the end of the last flush.
    pub took: Duration,
}

impl Copied {
    /// These bytes were copied in this time.
    #[must_use]
    pub fn new(bytes: u64, took: Duration) -> Self {
        Self { bytes, took }
    }

    /// The copy began then, and has just ended.
    #[must_use]
    pub fn since(began: Instant, bytes: u64) -> Self {
        Self::new(bytes, began.elapsed())
    }

    /// Bytes per second.
    #[must_use]
    pub fn rate(&self) -> u64 {
        let nanos = self.took.as_nanos().max(1);
        u64::try_from(u128::from(self.bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
    }

    /// The member `copied`.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "bytes": self.bytes,
            "elapsed_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "rate": self.rate(),
        })
    }
}

/// `1.5 GiB in 3.2 s, 480 MiB/s`.
impl fmt::Display for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        let (bytes, rate) = (size::human(self.bytes), size::human(self.rate()));
        if seconds < 10.0 {
            write!(f, "{bytes} in {seconds:.2} s, {rate}/s")
        } else if seconds < 120.0 {
            write!(f, "{bytes} in {seconds:.0} s, {rate}/s")
        } else {
            let minutes = (seconds / 60.0).floor();
            let rest = seconds - minutes * 60.0;
            write!(f, "{bytes} in {minutes:.0} min {rest:.0} s, {rate}/s")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_much_how_long_and_how_fast() {
        for (ms, text) in [
            (2000, "1 GiB in 2.00 s, 512 MiB/s"),
            (64_000, "1 GiB in 64 s, 16 MiB/s"),
            (128_000, "1 GiB in 2 min 8 s, 8 MiB/s"),
        ] {
            let copied = Copied::new(1 << 30, Duration::from_millis(ms));
            assert_eq!(copied.to_string(), text);
            assert_eq!(copied.json()["rate"].as_u64(), Some(copied.rate()));
        }
        assert_eq!(Copied::new(7, Duration::ZERO).rate(), 7_000_000_000);
    }
}
