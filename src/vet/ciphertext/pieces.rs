//! The pieces of an area, in which it is read: all of it except the holes of the storage, or a
//! sample.

use std::collections::VecDeque;
use std::ops::Range;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::areas::{Area, Purpose};
use super::randomness::BLOCK;
use crate::backend::{Allocation, Backend, IoError};

/// The bytes that are read at once.
const CHUNK: u64 = 1 << 20;

/// The bytes that a sample reads at each place.
pub const PIECE: u64 = 64 << 10;

/// Random places in the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The number of pieces of [`PIECE`] bytes that are read, all of them different.
    pub pieces: u32,
    /// The seed of the random places. The same seed gives the same places.
    pub seed: u64,
}

/// What to read of an area.
pub(super) struct Plan<'a> {
    area: &'a Area,
    /// The random places, in units of [`PIECE`] of all parts of the area, in order.
    places: Option<Vec<u64>>,
    /// The number of places, and of all pieces of the area.
    pub(super) sampled: Option<(u64, u64)>,
}

pub(super) fn plan(area: &Area, sample: Option<Sample>) -> Plan<'_> {
    let sample = sample.filter(|_| area.purpose == Purpose::Data);
    let all = area.size().div_ceil(PIECE);
    let places = sample.map(|sample| places(all, sample));
    Plan {
        area,
        sampled: places.as_ref().map(|places| (places.len() as u64, all)),
        places,
    }
}

impl<'a> Plan<'a> {
    /// How many bytes there are, including holes.
    pub(super) fn bytes(&self) -> u64 {
        match &self.places {
            _ if !self.is_read() => 0,
            Some(places) => places.len() as u64 * PIECE,
            None => self.area.size(),
        }
    }

    /// The pieces. The storage is asked for its holes as they are taken.
    pub(super) fn pieces(&self, storage: &'a dyn Backend) -> Pieces<'a> {
        let parts = match &self.places {
            _ if !self.is_read() => VecDeque::new(),
            Some(places) => sampled_parts(self.area.parts(), places),
            None => self.area.parts().iter().cloned().collect(),
        };
        Pieces {
            storage,
            parts,
            // A question for each place costs as much as reading it.
            asks: self.places.is_none(),
            known: VecDeque::new(),
            known_to: 0,
        }
    }

    /// Compressed data is known not to be ciphertext.
    fn is_read(&self) -> bool {
        let purpose = self.area.purpose;
        purpose.is_judged() && purpose != Purpose::Compressed
    }
}

/// The ranges that these places have in the parts of an area.
fn sampled_parts(parts: &[Range<u64>], places: &[u64]) -> VecDeque<Range<u64>> {
    let mut found = VecDeque::new();
    let mut parts = parts.iter();
    let mut part = parts.next().cloned().unwrap_or(0..0);
    // The bytes of the area before what is left of the part.
    let mut before = 0;
    for place in places {
        let (from, to) = (place * PIECE, (place + 1) * PIECE);
        while before < to {
            let left = part.end - part.start;
            if left == 0 {
                match parts.next() {
                    Some(next) => part = next.clone(),
                    None => return found,
                }
                continue;
            }
            // Skips up to the place, or takes up to its end.
            let bound = if before < from { from } else { to };
            let taken = left.min(bound - before);
            if before >= from {
                found.push_back(part.start..part.start + taken);
            }
            part.start += taken;
            before += taken;
        }
    }
    found
}

/// A piece of an area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its range in bytes.
    pub(super) range: Range<u64>,
    /// Whether the storage has no data there.
    pub(super) is_hole: bool,
}

impl Piece {
    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// The pieces of an area, in order. A piece to be read has at most [`CHUNK`] bytes.
pub(super) struct Pieces<'a> {
    storage: &'a dyn Backend,
    /// What is left of the parts.
    parts: VecDeque<Range<u64>>,
    /// Whether the storage is asked for holes.
    asks: bool,
    /// The holes that are known, in order, and up to which byte.
    known: VecDeque<Range<u64>>,
    known_to: u64,
}

impl Pieces<'_> {
    /// The next pieces, at most `most` of them. None after the last one.
    pub(super) fn batch(&mut self, most: usize) -> Result<Vec<Piece>, IoError> {
        let mut batch = Vec::with_capacity(most);
        while batch.len() < most
            && let Some(part) = self.parts.front().cloned()
        {
            let piece = self.first(&part)?;
            if let Some(left) = self.parts.front_mut() {
                left.start = piece.range.end;
                if left.is_empty() {
                    self.parts.pop_front();
                }
            }
            if piece.len() > 0 {
                batch.push(piece);
            }
        }
        Ok(batch)
    }

    /// The first piece of a part.
    fn first(&mut self, part: &Range<u64>) -> Result<Piece, IoError> {
        let at = part.start;
        if self.asks && at >= self.known_to {
            self.ask(at)?;
        }
        while self.known.front().is_some_and(|hole| hole.end <= at) {
            self.known.pop_front();
        }
        let all = part.end.min(at.saturating_add(CHUNK));
        let read = |end| Piece {
            range: at..end,
            is_hole: false,
        };
        // In whole blocks of the part, so that the same sectors are tested together.
        let block = BLOCK as u64;
        let in_blocks = |bound: u64| at + (bound - at) / block * block;
        match self.known.front() {
            _ if !self.asks => Ok(read(all)),
            Some(hole) if hole.start <= at => {
                let end = match hole.end >= part.end {
                    true => part.end,
                    false => in_blocks(hole.end),
                };
                // Less than a block: the rest of it is not a hole.
                let is_hole = end > at;
                let end = if is_hole {
                    end
                } else {
                    part.end.min(at + block)
                };
                Ok(Piece {
                    range: at..end,
                    is_hole,
                })
            }
            Some(hole) => {
                let start = at + (hole.start - at).next_multiple_of(block);
                Ok(read(all.min(start)))
            }
            None => Ok(read(
                all.min(at + (self.known_to - at).next_multiple_of(block)),
            )),
        }
    }

    /// Asks for the holes from a byte on.
    fn ask(&mut self, at: u64) -> Result<(), IoError> {
        let size = self.storage.geometry().size;
        self.known.clear();
        self.known_to = at;
        for (len, allocation) in self.storage.extents(at..size)? {
            let end = self.known_to.saturating_add(len);
            if allocation == Allocation::Hole {
                self.known.push_back(self.known_to..end);
            }
            self.known_to = end;
        }
        // The contract says that there is progress.
        self.known_to = self.known_to.max(at + 1);
        Ok(())
    }
}

/// Different random numbers below `all`, in order.
fn places(all: u64, sample: Sample) -> Vec<u64> {
    let mut rng = StdRng::seed_from_u64(sample.seed);
    let all = usize::try_from(all).unwrap_or(usize::MAX);
    let wanted = usize::try_from(sample.pieces).unwrap_or(usize::MAX);
    let mut places: Vec<u64> = rand::seq::index::sample(&mut rng, all, wanted.min(all))
        .into_iter()
        .map(|place| place as u64)
        .collect();
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Extents, Geometry};
    use crate::sectors::{Cipher, Sectors};

    /// A storage that tells these extents, two at a time.
    struct Told(Vec<(u64, Allocation)>);

    impl Backend for Told {
        fn geometry(&self) -> Geometry {
            Geometry::new(self.0.iter().map(|(len, _)| len).sum())
        }

        fn extents(&self, range: Range<u64>) -> Result<Extents, IoError> {
            let mut at = 0;
            let mut told = Extents::new();
            for (len, allocation) in &self.0 {
                let (start, end) = (at.max(range.start), (at + len).min(range.end));
                at += len;
                if start < end && told.len() < 2 {
                    told.push((end - start, *allocation));
                }
            }
            Ok(told)
        }

        fn read_at(&self, _: u64, _: &mut Sectors<Cipher>) -> Result<(), IoError> {
            unreachable!()
        }
        fn write_at(&self, _: u64, _: &Sectors<Cipher>) -> Result<(), IoError> {
            unreachable!()
        }
        fn flush(&self) -> Result<(), IoError> {
            unreachable!()
        }
        fn discard(&self, _: Range<u64>) -> Result<(), IoError> {
            unreachable!()
        }
        fn write_zeroes(&self, _: Range<u64>) -> Result<(), IoError> {
            unreachable!()
        }
        fn resize(&self, _: u64) -> Result<(), IoError> {
            unreachable!()
        }
    }

    fn all(area: &Area, storage: &Told) -> Vec<(Range<u64>, bool)> {
        let plan = plan(area, None);
        let mut pieces = plan.pieces(storage);
        let mut found = Vec::new();
        loop {
            let batch = pieces.batch(3).unwrap();
            if batch.is_empty() {
                return found;
            }
            found.extend(batch.into_iter().map(|piece| (piece.range, piece.is_hole)));
        }
    }

    #[test]
    fn holes_are_left_out_in_whole_blocks() {
        use Allocation::{Data, Hole};
        let storage = Told(vec![
            (10_000, Hole),
            (100, Data),
            (20_000, Hole),
            (3 << 20, Data),
            (4096, Hole),
            (1, Data),
            (9, Hole),
        ]);
        let size = storage.geometry().size;
        let area = Area::new(Purpose::Data, 512..size);
        let found = all(&area, &storage);
        // Every byte is in one piece, and every byte of data in one that is read.
        let mut at = 512;
        let mut data = vec![10_000..10_100, 30_100..30_100 + (3 << 20)];
        let one = 30_100 + (3 << 20) + 4096;
        data.push(one..one + 1);
        for (range, is_hole) in &found {
            assert_eq!(range.start, at);
            assert!(*is_hole || range.end - range.start <= CHUNK);
            let overlaps = |data: &Range<u64>| data.start < range.end && range.start < data.end;
            assert!(!is_hole || !data.iter().any(overlaps), "{range:?}");
            assert!(
                range.end == size || (range.end - 512).is_multiple_of(4096),
                "{range:?}"
            );
            at = range.end;
        }
        assert_eq!(at, size);
        let holes: u64 = found
            .iter()
            .filter(|(_, is_hole)| *is_hole)
            .map(|(range, _)| range.end - range.start)
            .sum();
        assert_eq!(holes, 8192 + 16_384);
        // A part that is a hole up to its end.
        let area = Area::new(Purpose::Data, 512..9000);
        assert_eq!(all(&area, &storage), [(512..9000, true)]);
        let none = Area::new(Purpose::Header, 512..9000);
        assert_eq!(all(&none, &storage), []);
    }

    #[test]
    fn a_sample_is_taken_from_all_parts_together() {
        let parts = [0..PIECE / 2, PIECE..2 * PIECE, 4 * PIECE..5 * PIECE + 7];
        let found = sampled_parts(&parts, &[0, 2]);
        let expected = [
            0..PIECE / 2,
            PIECE..PIECE + PIECE / 2,
            // The last piece of the area is shorter.
            4 * PIECE + PIECE / 2..5 * PIECE + 7,
        ];
        assert_eq!(found, expected);
        assert_eq!(sampled_parts(&parts, &[3]), []);
        assert_eq!(sampled_parts(&[], &[0]), []);
    }
}
