//! Which version of a file a server has, and which part of it an answer is.
//!
//! References: RFC 9110, section 8.8 (validators), 13.1.5 (`If-Range`) and 14.4 (`Content-Range`).

use ureq::http::HeaderMap;
use ureq::http::header::{CONTENT_RANGE, DATE, ETAG, LAST_MODIFIED};

use super::error::Problem;

/// A version of a file: what a server says of it, and its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    etag: Option<String>,
    modified: Option<String>,
    /// When the answer was made, by the server's clock.
    date: Option<String>,
    pub(super) size: u64,
}

impl Version {
    /// The version that an answer is of, and the first byte that it has. `None` is an answer
    /// without a range.
    pub(super) fn of(headers: &HeaderMap) -> Option<(Self, u64)> {
        let text = |name| headers.get(name)?.to_str().ok().map(str::to_owned);
        let range = text(CONTENT_RANGE)?;
        let (first, size) = parse(&range)?;
        Some((
            Self {
                etag: text(ETAG),
                modified: text(LAST_MODIFIED),
                date: text(DATE),
                size,
            },
            first,
        ))
    }

    /// What is sent so that another version is not taken for this one: a strong validator.
    pub(super) fn validator(&self) -> Result<&str, Problem> {
        let validator = self.strong_etag().or_else(|| self.strong_modified());
        validator.ok_or(Problem::NoVersion)
    }

    fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| etag.starts_with('"'))
    }

    /// The time of the last change, if the file cannot have changed again in the same second
    /// (section 8.8.2.2): the answer is at least one second younger, by the same server's clock.
    fn strong_modified(&self) -> Option<&str> {
        let modified = self.modified.as_deref()?;
        let age = seconds(self.date.as_deref()?)? - seconds(modified)?;
        (age >= 1).then_some(modified)
    }

    /// Whether an answer is of the same version: it has the validator of this one.
    pub(super) fn is(&self, other: &Self) -> bool {
        let same = match self.strong_etag() {
            Some(etag) => other.etag.as_deref() == Some(etag),
            None => self.modified.is_some() && self.modified == other.modified,
        };
        same && self.size == other.size
    }
}

/// The first byte and the size of the whole in `bytes FIRST-LAST/SIZE`, or `bytes */SIZE`.
fn parse(range: &str) -> Option<(u64, u64)> {
    let (range, size) = range.strip_prefix("bytes ")?.split_once('/')?;
    let first = match range {
        "*" => 0,
        range => range.split_once('-')?.0.parse().ok()?,
    };
    Some((first, size.parse().ok()?))
}

/// The seconds since 1970 of a date as `Sun, 06 Nov 1994 08:49:37 GMT` (section 5.6.7). Servers
/// write no other form.
fn seconds(date: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, date) = date.split_once(", ")?;
    let mut words = date.split(' ');
    let day = number(words.next()?, 31)?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)?;
    let year = number(words.next()?, 9999)?;
    let mut time = words.next()?.split(':');
    let mut part = |most| number(time.next()?, most);
    let (hour, minute, second) = (part(23)?, part(59)?, part(60)?);
    if time.next().is_some() || words.next() != Some("GMT") || words.next().is_some() {
        return None;
    }
    // Years begin in March here, so that a leap day is the last day of its year.
    let month = i64::try_from(month).ok()?;
    let year = if month < 2 { year - 1 } else { year };
    let months = (month + 10) % 12;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (months * 306 + 5) / 10 + day;
    Some((days - 719_469) * 86400 + hour * 3600 + minute * 60 + second)
}

/// A number of decimal digits.
fn number(text: &str, most: i64) -> Option<i64> {
    let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let number = is_number.then(|| text.parse().ok())??;
    (number <= most).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_its_start_and_the_size_of_the_whole() {
        assert_eq!(parse("bytes 5-9/100"), Some((5, 100)));
        assert_eq!(parse("bytes */100"), Some((0, 100)));
        for wrong in [
            "",
            "bytes 5-9/*",
            "bytes -9/100",
            "lines 5-9/100",
            "bytes 5-9",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn dates_are_read() {
        for (date, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
            ("Sun, 28 Feb 2100 23:59:59 GMT", 4_107_542_399),
        ] {
            assert_eq!(seconds(date), Some(expected), "{date}");
        }
        for wrong in [
            "",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT x",
            "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    const DAY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn version(etag: Option<&str>, modified: Option<&str>, date: Option<&str>) -> Version {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Version {
            etag: owned(etag),
            modified: owned(modified),
            date: owned(date),
            size: 1,
        }
    }

    #[test]
    fn only_a_strong_validator_is_one() {
        let (strong, weak) = (Some("\"a\""), Some("W/\"a\""));
        for (version, expected) in [
            (version(strong, None, None), strong),
            (version(strong, Some(DAY), Some(LATER)), strong),
            (version(weak, Some(DAY), Some(LATER)), Some(DAY)),
            (version(None, Some(DAY), Some(LATER)), Some(DAY)),
            (version(weak, None, None), None),
            // It may change again in this second.
            (version(None, Some(DAY), Some(DAY)), None),
            (version(None, Some(LATER), Some(DAY)), None),
            (version(None, Some(DAY), None), None),
            (version(None, Some("Mon"), Some(LATER)), None),
        ] {
            assert_eq!(version.validator().ok(), expected, "{version:?}");
        }
    }

    #[test]
    fn an_answer_without_the_validator_is_of_another_version() {
        let tagged = version(Some("\"a\""), Some(DAY), Some(LATER));
        let dated = version(None, Some(DAY), Some(LATER));
        for (other, is_tagged, is_dated) in [
            (version(Some("\"a\""), Some(DAY), None), true, true),
            (version(Some("\"a\""), None, None), true, false),
            (version(Some("\"b\""), Some(DAY), None), false, true),
            (version(Some("W/\"a\""), Some(LATER), None), false, false),
            (version(None, Some(DAY), None), false, true),
            (version(None, None, None), false, false),
        ] {
            assert_eq!(tagged.is(&other), is_tagged, "{other:?}");
            assert_eq!(dated.is(&other), is_dated, "{other:?}");
            let longer = Version { size: 2, ..other };
            assert!(!tagged.is(&longer) && !dated.is(&longer));
        }
    }
}
