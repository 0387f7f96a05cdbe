//! Which parts of an export hold data, as the server says in `base:allocation`.

use std::ops::Range;
use std::sync::Arc;

use luksmith_formats::nbd::{Command, CommandFlags, Extent, ExtentFlags};

use super::connection::Resources;
use super::error::{NbdError, Problem};
use super::link::Link;
use super::request::Piece;
use crate::backend::extents::{Allocation, Extents, push};

/// The most bytes that one request asks about.
const LONGEST: u64 = 1 << 30;

/// The least bytes of a hole. A shorter one costs less to read than to find, and is reported as
/// data. An answer about fewer bytes is not used either, so that a server which tells of a byte at
/// a time is not asked about each.
const SHORTEST: u64 = 64 << 10;

/// Asks about the start of a range. `None` if the server does not know.
pub(super) fn ask(link: &Link, range: Range<u64>) -> Result<Option<Extents>, Arc<NbdError>> {
    let unit = u64::from(link.export.minimum.max(1));
    let start = range.start / unit * unit;
    let end = range.end.min(start.saturating_add(LONGEST));
    let end = end.next_multiple_of(unit).min(link.export.size);
    let resources = link.carry_out(Piece {
        command: Command::BlockStatus,
        flags: CommandFlags::NONE,
        offset: start,
        len: end - start,
        payload: &[],
        resources: Resources {
            extents: Some(Vec::new()),
            ..Resources::default()
        },
    });
    match resources {
        Ok(resources) => {
            let told = resources.extents.unwrap_or_default();
            Ok(Some(within(range.start..end.min(range.end), start, &told)))
        }
        Err(error) if matches!(error.source, Problem::Answered { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The extents of a range, of those that were told from `start` on.
fn within(range: Range<u64>, start: u64, told: &[Extent]) -> Extents {
    let mut extents = Extents::new();
    let (mut at, mut done) = (start, range.start);
    for extent in told {
        let from = at.clamp(range.start, range.end);
        at = at.saturating_add(extent.len);
        let len = at.clamp(range.start, range.end) - from;
        let hole = extent.flags.contains(ExtentFlags::ZERO) && len >= SHORTEST;
        let allocation = if hole {
            Allocation::Hole
        } else {
            Allocation::Data
        };
        push(&mut extents, len, allocation);
        done = from + len;
    }
    let told = done - range.start;
    if told < SHORTEST {
        // The range has at least this length, or ends.
        let len = (range.end - range.start).min(SHORTEST);
        return vec![(len, Allocation::Data)];
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: u64 = 1 << 10;

    fn extent(len: u64, flags: ExtentFlags) -> Extent {
        Extent { len, flags }
    }

    #[test]
    fn short_holes_are_data_and_short_answers_are_not_used() {
        let (data, hole) = (ExtentFlags::NONE, ExtentFlags::HOLE | ExtentFlags::ZERO);
        let told = [
            extent(100 * K, hole),
            extent(K, data),
            extent(4 * K, hole),
            extent(60 * K, data),
            extent(64 * K, hole),
            extent(1 << 40, ExtentFlags::HOLE),
        ];
        let expected = [
            (99 * K, Allocation::Hole),
            (65 * K, Allocation::Data),
            (64 * K, Allocation::Hole),
            (5, Allocation::Data),
        ];
        let end = 229 * K + 5;
        assert_eq!(within(K..end, 0, &told), expected);
        let short = [extent(1, hole)];
        assert_eq!(within(0..end, 0, &short), [(64 * K, Allocation::Data)]);
        assert_eq!(within(0..7, 0, &short), [(7, Allocation::Data)]);
        assert_eq!(within(0..end, 0, &[]), [(64 * K, Allocation::Data)]);
    }
}
