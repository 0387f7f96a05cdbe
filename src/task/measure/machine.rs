//! Which machine was measured, and when.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The machine that was measured, and the day. Figures cannot be compared without them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Machine {
    /// The model of the CPU, or the architecture if the system does not report the model.
    pub cpu: String,
    /// How many processors this process may use.
    pub processors: usize,
    /// The day in UTC, such as 2026-11-24.
    pub date: String,
}

impl Machine {
    /// Looks at this machine.
    #[must_use]
    pub fn look() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == "model name");
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            cpu: model
                .map_or(std::env::consts::ARCH, |(_, model)| model.trim())
                .to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            date: date(now.map_or(0, |now| now.as_secs()) / 86_400),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.processors == 1 { "" } else { "s" };
        write!(f, "{}, {} processor{plural}", self.cpu, self.processors)
    }
}

/// The date so many days after 1970-01-01, counted in eras of 400 years that begin in March.
fn date(days: u64) -> String {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 {
        (era * 400 + year, month + 3)
    } else {
        (era * 400 + year + 1, month - 9)
    };
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn days_have_dates() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_781, "2026-11-24"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(date(days), expected);
        }
    }
}
