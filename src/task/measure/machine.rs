//! Which machine was measured, and when.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The machine that was measured, and the day. Figures cannot be compared without them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Machine {
    /// The model of the CPU, or the architecture if the system does not report the model.
    pub cpu: String,
    /// How many processors this process may use.
    pub processors: usize,
    /// The day in UTC, such as 2026-11-24.
    pub date: String,
    /// The name of the operating system, if it has one.
    pub os: Option<String>,
    /// The version of its kernel.
    pub kernel_version: Option<String>,
    /// The clock of the first processor in MHz at the beginning of the measurement.
    pub mhz: Option<u64>,
    /// The governor of that clock, such as `performance`. Virtual machines have none.
    pub governor: Option<String>,
}

impl Machine {
    /// Looks at this machine.
    #[must_use]
    pub fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let line = |path: &str| Some(read(path).trim().to_owned()).filter(|line| !line.is_empty());
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            cpu: of_first(&info, ':', "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.into()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            date: date(now.map_or(0, |now| now.as_secs()) / 86_400),
            os: of_first(&read("/etc/os-release"), '=', "PRETTY_NAME"),
            kernel_version: line("/proc/sys/kernel/osrelease"),
            mhz: of_first(&info, ':', "cpu MHz")
                .and_then(|mhz| mhz.split('.').next()?.parse().ok()),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        }
    }
}

/// The value of the first line with this key, without quotes.
fn of_first(text: &str, separator: char, key: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(separator));
    let (_, value) = lines.find(|(name, _)| name.trim() == key)?;
    Some(value.trim().trim_matches('"').to_owned())
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.processors == 1 { "" } else { "s" };
        write!(f, "{}, {} processor{plural}", self.cpu, self.processors)
    }
}

/// The time so many seconds after 1970-01-01, in UTC.
#[cfg(feature = "s3")]
pub(in crate::task) fn time_text(seconds: u64) -> String {
    let of_day = seconds % 86_400;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!(
        "{} {hour:02}:{minute:02}:{second:02} UTC",
        date(seconds / 86_400)
    )
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
    use super::{date, of_first};

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

    #[test]
    fn values_are_found_by_their_keys() {
        let info = "processor\t: 0\nmodel name\t: A: B\ncpu MHz\t\t: 2596.134\nmodel name\t: C\n";
        assert_eq!(of_first(info, ':', "model name").unwrap(), "A: B");
        assert_eq!(of_first(info, ':', "cpu MHz").unwrap(), "2596.134");
        let release = "ID=x\nPRETTY_NAME=\"X 12 (y)\"\n";
        assert_eq!(of_first(release, '=', "PRETTY_NAME").unwrap(), "X 12 (y)");
        assert_eq!(of_first(release, '=', "NAME"), None);
    }
}
