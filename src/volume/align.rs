//! Converts ranges of bytes to whole units: the only place that computes with partial units.
//!
//! A request is cut into pieces of at most [`PIECE`], or of [`REMOTE_PIECE`] if the storage is
//! remote, or of one cluster if that is larger. Only the first and the last unit of a request can
//! be partial.

use std::ops::Range;

use crate::crypt::Windows;

/// The size of a piece in bytes. It is encrypted and written while it is in the L2 cache.
pub(super) const PIECE: u64 = 256 << 10;
/// The size of a piece of remote storage in bytes. There each piece waits for the server's answer.
pub(super) const REMOTE_PIECE: u64 = 1 << 20;

/// The data of a write.
pub(super) enum Source<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// The bytes in these windows.
    Windows(Windows<'a>),
    /// This number of zeroes.
    Zeroes(u64),
}

impl Source<'_> {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Windows(windows) => windows.len() as u64,
            Self::Zeroes(len) => *len,
        }
    }

    /// Copies the next bytes to `into`. Returns false if they are lost.
    #[must_use]
    pub(super) fn take(&mut self, into: &mut [u8]) -> bool {
        match self {
            Self::Bytes(bytes) => {
                let (now, later) = bytes.split_at(into.len());
                into.copy_from_slice(now);
                *bytes = later;
            }
            Self::Windows(windows) => {
                let now = windows.take(into.len());
                now.copy_to(into);
                return !now.are_lost();
            }
            Self::Zeroes(left) => {
                into.fill(0);
                *left -= into.len() as u64;
            }
        }
        true
    }
}

/// The range, widened to whole units.
pub(super) fn around(range: Range<u64>, unit: u64) -> Range<u64> {
    let end = range.end.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
    range.start - range.start % unit..end
}

/// The whole units inside of the range, which may be none.
pub(super) fn inside(range: &Range<u64>, unit: u64) -> Range<u64> {
    let start = range
        .start
        .checked_next_multiple_of(unit)
        .unwrap_or(u64::MAX);
    start..range.end - range.end % unit
}

/// A part of a request: whole units, and the requested bytes in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The offset of the units in the volume, in bytes.
    pub(super) start: u64,
    /// The length of the units, in bytes.
    pub(super) len: usize,
    /// The requested bytes, relative to `start`.
    pub(super) inner: Range<usize>,
}

impl Piece {
    /// Cuts a request into pieces. Every piece but the first starts at a multiple of `most`. The
    /// caller has checked that the request is inside of the volume.
    pub(super) fn cut(offset: u64, len: u64, unit: u64, most: u64) -> impl Iterator<Item = Self> {
        let end = offset + len;
        let most = most.max(unit);
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let until = end.min((at - at % most) + most);
            let whole = around(at..until, unit);
            let from_start =
                |position: u64| usize::try_from(position - whole.start).unwrap_or(usize::MAX);
            let piece = Self {
                start: whole.start,
                len: from_start(whole.end),
                inner: from_start(at)..from_start(until),
            };
            at = until;
            Some(piece)
        })
    }

    /// Whether all bytes of its units are requested.
    pub(super) fn is_whole(&self) -> bool {
        self.inner == (0..self.len)
    }

    /// The partial units, of which not all bytes are requested: none, the first, the last, or both.
    pub(super) fn partial_units(&self, unit: u64) -> impl Iterator<Item = Range<usize>> + use<> {
        let unit = usize::try_from(unit).unwrap_or(usize::MAX);
        let (first, last) = (0..unit, self.len - unit..self.len);
        let head = self.inner.start > 0;
        let tail = self.inner.end < self.len && !(head && last == first);
        [head.then_some(first), tail.then_some(last)]
            .into_iter()
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_widened_and_narrowed_to_units() {
        assert_eq!(around(0..0, 512), 0..0);
        assert_eq!(around(511..512, 512), 0..512);
        assert_eq!(around(511..513, 512), 0..1024);
        assert_eq!(around(u64::MAX - 1..u64::MAX, 512).end, u64::MAX);
        assert_eq!(inside(&(1..1024), 512), 512..1024);
        assert!(inside(&(1..1023), 512).is_empty());
        assert!(inside(&(1..2), 512).is_empty());
    }

    #[test]
    fn pieces_cover_a_request_once_and_in_order() {
        for unit in [512, 4096] {
            for (offset, len) in [
                (0, 0),
                (0, 1),
                (511, 2),
                (PIECE - 1, 2),
                (100, 3 * PIECE),
                (PIECE, PIECE),
            ] {
                let mut at = offset;
                for piece in Piece::cut(offset, len, unit, PIECE) {
                    assert_eq!(piece.start + piece.inner.start as u64, at);
                    assert!(piece.start.is_multiple_of(unit));
                    assert!((piece.len as u64).is_multiple_of(unit));
                    assert!(piece.len as u64 <= PIECE);
                    assert!(piece.inner.end <= piece.len);
                    at += piece.inner.len() as u64;
                }
                assert_eq!(at, offset + len);
            }
        }
    }

    #[test]
    fn only_partial_units_are_read_first() {
        let partial = |offset, len| -> Vec<(usize, usize)> {
            let piece = Piece::cut(offset, len, 512, PIECE).next().unwrap();
            piece
                .partial_units(512)
                .map(|unit| (unit.start, unit.end))
                .collect()
        };
        assert!(partial(0, 1024).is_empty());
        assert_eq!(partial(1, 10), [(0, 512)]);
        assert_eq!(partial(0, 10), [(0, 512)]);
        assert_eq!(partial(1, 2047), [(0, 512)]);
        assert_eq!(partial(0, 2047), [(1536, 2048)]);
        assert_eq!(partial(1, 2046), [(0, 512), (1536, 2048)]);
    }
}
