//! The expected result for a header, and the limits on time and memory.

use std::time::Duration;

use luksmith_formats::{FormatError, Kind};

use support::allocation::peak_of;
use support::cpu_time::time_of;

const MOST_TIME: Duration = Duration::from_secs(1);
const MOST_MEMORY: usize = 64 << 20;

/// The result that a table expects.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    Good,
    /// The kind of the error, the field, and a part of the cause.
    Bad(Kind, &'static str, &'static str),
}

pub(crate) fn malformed(field: &'static str, cause: &'static str) -> Verdict {
    Verdict::Bad(Kind::Malformed, field, cause)
}

pub(crate) fn not_understood(field: &'static str, cause: &'static str) -> Verdict {
    Verdict::Bad(Kind::NotUnderstood, field, cause)
}

pub(crate) fn unsupported(field: &'static str, cause: &'static str) -> Verdict {
    Verdict::Bad(Kind::Unsupported, field, cause)
}

pub(crate) fn over_limit(field: &'static str, cause: &'static str) -> Verdict {
    Verdict::Bad(Kind::OverLimit, field, cause)
}

/// Parses within the limits, and compares the result with the expected one.
pub(crate) fn judge<T: std::fmt::Debug>(
    name: &str,
    expected: Verdict,
    parse: impl FnOnce() -> Result<T, FormatError>,
) -> Result<T, FormatError> {
    let ((result, peak), took) = time_of(|| peak_of(parse));
    assert!(took < MOST_TIME, "{name}: took {took:?}");
    assert!(peak < MOST_MEMORY, "{name}: took {peak} bytes");
    match (expected, &result) {
        (Verdict::Good, Ok(_)) => {}
        (Verdict::Bad(kind, field, cause), Err(error)) => {
            assert_eq!(
                (error.kind, error.field.as_str()),
                (kind, field),
                "{name}: {error}"
            );
            assert!(
                error.cause.contains(cause),
                "{name}: {error}; expected {cause:?}"
            );
            let shown = error.to_string();
            assert!(
                shown.len() < 400 && !shown.contains('\n'),
                "{name}: {shown}"
            );
        }
        (Verdict::Good, Err(error)) => panic!("{name}: refused: {error}"),
        (Verdict::Bad(..), Ok(_)) => panic!("{name}: accepted; expected {expected:?}"),
    }
    result
}
