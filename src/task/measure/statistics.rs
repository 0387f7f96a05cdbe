//! The arithmetic of measurements: speeds from work and wall time, their mean and spread, and
//! ratios. It measures nothing itself.

use std::time::Duration;

/// Per cent that the median and the mean may be below the best, before the machine counts as busy.
const BUSY: u64 = 8;

/// What one thread did, and when, on a clock that all threads share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lap {
    pub(super) begin: Duration,
    pub(super) end: Duration,
    /// Bytes or iterations.
    pub(super) work: u64,
}

/// The work of all threads a second: their work together, divided by the time from the first begin
/// to the last end. Speeds of single threads cannot be added up, since the threads may have run one
/// after the other.
pub(super) fn speed(laps: &[Lap]) -> f64 {
    let work: f64 = laps.iter().map(|lap| lap.work as f64).sum();
    let begin = laps.iter().map(|lap| lap.begin).min().unwrap_or_default();
    let end = laps.iter().map(|lap| lap.end).max().unwrap_or_default();
    work / end.saturating_sub(begin).as_secs_f64().max(1e-9)
}

/// Several measurements of one thing: bytes or iterations a second, or microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spread {
    /// The best one.
    pub best: u64,
    /// The median. If it is far from the best, the machine was busy.
    pub median: u64,
    /// The arithmetic mean.
    pub mean: u64,
    /// The standard deviation of a single measurement.
    pub sigma: u64,
    /// How many measurements there are.
    pub runs: u64,
}

impl Spread {
    /// Of speeds: the largest is the best.
    pub(super) fn of_speeds(mut speeds: Vec<f64>) -> Self {
        speeds.sort_by(|one, other| other.total_cmp(one));
        Self::of_sorted(&speeds)
    }

    /// Of times, in microseconds: the smallest is the best.
    pub(super) fn of_times(times: &[Duration]) -> Self {
        let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
        times.sort_by(f64::total_cmp);
        Self::of_sorted(&times)
    }

    /// `values` has the best one first.
    fn of_sorted(values: &[f64]) -> Self {
        let runs = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / runs;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let middle = values.get(values.len() / 2);
        Self {
            best: whole(values.first().copied().unwrap_or_default()),
            median: whole(middle.copied().unwrap_or_default()),
            mean: whole(mean),
            sigma: whole((squares / (runs - 1.0).max(1.0)).sqrt()),
            runs: values.len() as u64,
        }
    }

    /// By how many per cent the median or the mean is worse than the best, whichever is more.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let lost = |typical: u64| {
            let (small, large) = (self.best.min(typical), self.best.max(typical));
            (large - small).saturating_mul(100) / large.max(1)
        };
        lost(self.median).max(lost(self.mean))
    }

    /// Whether the machine had other work meanwhile, so that the figure cannot be trusted.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.lost() >= BUSY
    }

    /// The ratio of this measurement to an older one. `None` if the older one is zero.
    #[must_use]
    pub fn over(&self, old: &Self) -> Option<Ratio> {
        if old.mean == 0 || old.best == 0 {
            return None;
        }
        let of_means = self.mean as f64 / old.mean as f64;
        let relative = |spread: &Self| spread.sigma as f64 / (spread.mean as f64).max(1.0);
        Some(Ratio {
            of_bests: self.best as f64 / old.best as f64,
            of_means,
            sigma: of_means * relative(self).hypot(relative(old)),
        })
    }
}

/// How a measurement compares with an older one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Ratio {
    /// The ratio of the best measurements, on which other work of the machine has least effect.
    pub of_bests: f64,
    /// The ratio of the means.
    pub of_means: f64,
    /// The standard deviation of the ratio of two single measurements.
    pub sigma: f64,
}

/// The limit of a CPU, as the fastest of several measurements: of the limit itself, and of what it
/// limits. A busy machine slows a measurement down and never makes it faster, so the limit is at
/// least as high as each of them.
pub(super) fn limit(
    measured: impl Iterator<Item = u64>,
    limited: impl Iterator<Item = u64>,
) -> u64 {
    measured.chain(limited).max().unwrap_or_default()
}

/// Casts of floats saturate.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lap(begin: u64, end: u64, work: u64) -> Lap {
        Lap {
            begin: Duration::from_millis(begin),
            end: Duration::from_millis(end),
            work,
        }
    }

    #[test]
    fn threads_share_the_time_from_the_first_begin_to_the_last_end() {
        assert_eq!(speed(&[lap(0, 10, 1000)]), 100_000.0);
        // Side by side, twice as fast as one.
        assert_eq!(speed(&[lap(5, 15, 1000), lap(5, 15, 1000)]), 200_000.0);
        // One after the other, as fast as one: eight threads on one processor.
        let turns: Vec<Lap> = (0..8).map(|n| lap(10 * n, 10 * n + 10, 1000)).collect();
        assert_eq!(speed(&turns), 100_000.0);
        // The clock runs until the last one ends.
        assert_eq!(speed(&[lap(0, 10, 1000), lap(10, 40, 1000)]), 50_000.0);
    }

    #[test]
    fn nothing_measured_has_no_speed_and_does_not_divide_by_zero() {
        assert_eq!(speed(&[]), 0.0);
        assert!(speed(&[lap(1, 1, 7)]).is_finite());
        let nothing = Spread::of_speeds(Vec::new());
        assert_eq!((nothing.best, nothing.sigma, nothing.runs), (0, 0, 0));
        assert_eq!(nothing.lost(), 0);
        assert_eq!(nothing.over(&nothing), None);
    }

    #[test]
    fn a_spread_has_mean_and_sigma() {
        let spread = Spread::of_speeds(vec![4.0, 2.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        let expected = Spread {
            best: 9,
            median: 4,
            mean: 5,
            sigma: 2,
            runs: 8,
        };
        assert_eq!(spread, expected);
        let alone = Spread::of_speeds(vec![1e9]);
        assert_eq!((alone.mean, alone.sigma, alone.runs), (1_000_000_000, 0, 1));
    }

    #[test]
    fn the_best_time_is_the_shortest() {
        let times = [30, 10, 20].map(Duration::from_micros);
        let spread = Spread::of_times(&times);
        assert_eq!((spread.best, spread.median, spread.mean), (10, 20, 20));
        assert_eq!(spread.sigma, 10);
    }

    #[test]
    fn a_median_or_mean_far_from_the_best_means_a_busy_machine() {
        for (values, lost, busy) in [
            ([100.0, 93.0, 93.0], 7, false),
            ([100.0, 92.0, 92.0], 8, true),
            ([100.0, 100.0, 1.0], 33, true),
        ] {
            let spread = Spread::of_speeds(values.to_vec());
            assert_eq!(
                (spread.lost(), spread.is_busy()),
                (lost, busy),
                "{values:?}"
            );
        }
        let times = [100, 109, 109].map(Duration::from_millis);
        assert!(Spread::of_times(&times).is_busy());
    }

    #[test]
    fn a_ratio_has_the_spread_of_both_sides() {
        let spread = |best, mean, sigma| Spread {
            best,
            median: mean,
            mean,
            sigma,
            runs: 9,
        };
        let ratio = spread(2200, 2000, 60)
            .over(&spread(1000, 1000, 40))
            .unwrap();
        assert_eq!(ratio.of_bests, 2.2);
        assert_eq!(ratio.of_means, 2.0);
        // 3 % and 4 % make 5 %.
        assert!((ratio.sigma - 0.1).abs() < 1e-12, "{ratio:?}");
    }

    #[test]
    fn nothing_that_a_limit_limits_is_above_it() {
        assert_eq!(limit([90, 100].into_iter(), [80, 99].into_iter()), 100);
        assert_eq!(limit([90, 100].into_iter(), [80, 103].into_iter()), 103);
    }
}
