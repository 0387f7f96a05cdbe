//! Which bytes of a read have been received. A server that sends a byte twice violates the protocol
//! (`proto.md`, "Structured reply types").

use std::ops::Range;

/// The most separate pieces. Servers send the chunks of a read roughly in order, so few are needed.
const MAX_PIECES: usize = 4096;

/// Ranges of a buffer, sorted. No two of them touch.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    pieces: Vec<Range<usize>>,
}

impl Coverage {
    /// Adds a range that is not empty. Returns false if a part of it was received before, or there
    /// are too many separate pieces.
    pub(super) fn add(&mut self, range: Range<usize>) -> bool {
        let at = self.pieces.partition_point(|piece| piece.end < range.start);
        let is_full = self.pieces.len() == MAX_PIECES;
        match self.pieces.get_mut(at) {
            Some(piece) if piece.end == range.start => {
                let (end, next) = (range.end, at + 1);
                piece.end = end;
                match self.pieces.get(next).map(|next| next.start) {
                    Some(start) if start < end => return false,
                    Some(start) if start == end => {
                        let merged = self.pieces.remove(next);
                        self.pieces[at].end = merged.end;
                    }
                    _ => {}
                }
                true
            }
            Some(piece) if piece.start == range.end => {
                piece.start = range.start;
                true
            }
            Some(piece) if piece.start < range.end => false,
            _ if is_full => false,
            _ => {
                self.pieces.insert(at, range);
                true
            }
        }
    }

    /// Whether all of the first `len` bytes have been received.
    pub(super) fn is_whole(&self, len: usize) -> bool {
        matches!(self.pieces.as_slice(), [all] if *all == (0..len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order_make_a_whole() {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [0, 2, 1, 3], [1, 3, 0, 2]] {
            let mut coverage = Coverage::default();
            for (index, piece) in order.into_iter().enumerate() {
                assert!(!coverage.is_whole(40));
                assert!(
                    coverage.add(piece * 10..piece * 10 + 10),
                    "{order:?} {index}"
                );
            }
            assert!(coverage.is_whole(40) && !coverage.is_whole(41));
        }
    }

    #[test]
    fn bytes_received_twice_are_found() {
        let of = |ranges: &[Range<usize>]| {
            let mut coverage = Coverage::default();
            ranges.iter().all(|range| coverage.add(range.clone()))
        };
        assert!(!of(&[0..10, 0..10]));
        assert!(!of(&[0..10, 9..11]));
        assert!(!of(&[10..20, 5..11]));
        assert!(!of(&[10..20, 12..13]));
        assert!(!of(&[10..20, 0..30]));
        assert!(!of(&[0..10, 20..30, 10..25]));
        assert!(of(&[0..10, 20..30, 10..20]));
    }

    #[test]
    fn the_number_of_pieces_is_bounded() {
        let mut coverage = Coverage::default();
        let taken = (0..10_000).take_while(|piece| coverage.add(piece * 2..piece * 2 + 1));
        assert_eq!(taken.count(), MAX_PIECES);
    }
}
