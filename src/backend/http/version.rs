//! Which version of a file a server has, and which part of it an answer is.

use ureq::http::HeaderMap;
use ureq::http::header::{CONTENT_RANGE, ETAG, LAST_MODIFIED};

use super::error::Problem;

/// A version of a file: what a server says of it, and its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    etag: Option<String>,
    modified: Option<String>,
    pub(super) size: u64,
}

impl Version {
    /// The version that an answer is of, and the first byte that it has. `None` is an answer
    /// without a range.
    pub(super) fn of(headers: &HeaderMap) -> Option<(Self, u64)> {
        let text = |name| headers.get(name)?.to_str().ok().map(str::to_owned);
        let range = text(CONTENT_RANGE)?;
        let (first, size) = parse(&range)?;
        let (etag, modified) = (text(ETAG), text(LAST_MODIFIED));
        Some((
            Self {
                etag,
                modified,
                size,
            },
            first,
        ))
    }

    /// What is sent so that another version is not taken for this one.
    pub(super) fn validator(&self) -> Result<&str, Problem> {
        let strong = self.etag.as_deref().filter(|etag| etag.starts_with('"'));
        let validator = strong.or(self.modified.as_deref());
        validator.ok_or(Problem::NoVersion)
    }

    /// Whether an answer is of the same version.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.size == other.size
            && match (&self.etag, &other.etag) {
                (Some(one), Some(other)) => one == other,
                _ => self.modified == other.modified,
            }
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
    fn a_weak_tag_proves_nothing() {
        let version = |etag: &str, modified: Option<&str>| Version {
            etag: Some(etag.to_owned()),
            modified: modified.map(str::to_owned),
            size: 1,
        };
        assert_eq!(version("\"a\"", None).validator().unwrap(), "\"a\"");
        assert_eq!(version("W/\"a\"", Some("Mon")).validator().unwrap(), "Mon");
        assert!(matches!(
            version("W/\"a\"", None).validator(),
            Err(Problem::NoVersion)
        ));
        assert!(!version("\"a\"", None).is(&version("\"b\"", None)));
    }
}
