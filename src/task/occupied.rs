//! Whether a place that would be overwritten holds data.
//!
//! Where the storage knows its holes, these are not read. What is left is read completely if it is
//! little. Otherwise a file counts as data, and of any other storage samples are read.

use std::ops::Range;

use super::Error;
use super::storage::{Nature, Storage};
use crate::Interrupt;
use crate::backend::{Allocation, Extents, IoError};
use crate::location::Location;
use crate::partition::Disk;

/// The most bytes of a file that are read.
const MOST_OF_FILE: u64 = 256 << 20;
/// The most bytes of another storage that are read, unless only samples are.
const MOST_OF_OTHERS: u64 = 16 << 20;
/// How much is read at once, and how much of the start and the end.
const PIECE: u64 = 1 << 20;
/// The number of further samples, which are spread evenly.
const SAMPLES: u64 = 64;
/// The size of each of them in bytes.
const SAMPLE: u64 = 64 << 10;
/// How often the storage is asked for holes.
const QUESTIONS: usize = 4096;

/// The sentence that a range of bytes would overwrite partitions.
pub(super) fn crossing(location: &Location, partitions: &[u32]) -> String {
    let numbers: Vec<_> = partitions.iter().map(u32::to_string).collect();
    let what = match numbers.as_slice() {
        [one] => format!("partition {one}"),
        [first @ .., last] => format!("the partitions {} and {last}", first.join(", ")),
        [] => "no partition".to_owned(),
    };
    format!("{location} would be overwritten: it shares bytes with {what}")
}

/// Fills a buffer with the bytes from an offset on.
type Read<'a> = dyn Fn(u64, &mut [u8]) -> Result<(), IoError> + 'a;

/// A place that would be overwritten.
pub(super) struct Place<'a> {
    /// The number of its bytes.
    pub(super) size: u64,
    /// Whether it is a file, or a part of one.
    pub(super) is_file: bool,
    /// The extents from the start of a range on.
    pub(super) extents: &'a dyn Fn(Range<u64>) -> Result<Extents, IoError>,
    /// Reads it.
    pub(super) read: &'a Read<'a>,
}

impl Storage {
    /// Whether its bytes may be other than zeroes.
    pub(super) fn holds_data(&self, interrupt: &Interrupt) -> Result<bool, Error> {
        let disk = Disk::of(&*self.backend);
        let place = Place {
            size: disk.size(),
            is_file: self.nature == Nature::File,
            extents: &|range| self.backend.extents(range),
            read: &|at, into| disk.read(at, into),
        };
        place.holds_data(interrupt)
    }
}

impl Place<'_> {
    /// Whether its bytes may be other than zeroes.
    pub(super) fn holds_data(&self, interrupt: &Interrupt) -> Result<bool, Error> {
        // Usually what there is shows at the start.
        if self.reads(0..self.size.min(PIECE), interrupt)? {
            return Ok(true);
        }
        let most = match self.is_file {
            true => MOST_OF_FILE,
            false => MOST_OF_OTHERS,
        };
        match self.data(most)? {
            Some(data) => self.any(data, interrupt),
            None if self.is_file => Ok(true),
            None => self.any(samples(self.size), interrupt),
        }
    }

    /// The ranges that are no holes, unless they are more than `most` bytes.
    fn data(&self, most: u64) -> Result<Option<Vec<Range<u64>>>, Error> {
        let (mut found, mut at, mut total) = (Vec::new(), 0, 0_u64);
        for _ in 0..QUESTIONS {
            for (len, allocation) in (self.extents)(at..self.size)? {
                if allocation == Allocation::Data {
                    found.push(at..at + len);
                    total = total.saturating_add(len);
                }
                at += len;
            }
            if total > most {
                return Ok(None);
            }
            if at >= self.size {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn any(&self, ranges: Vec<Range<u64>>, interrupt: &Interrupt) -> Result<bool, Error> {
        for range in ranges {
            if self.reads(range, interrupt)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether there is anything but zeroes in a range, which is read.
    fn reads(&self, range: Range<u64>, interrupt: &Interrupt) -> Result<bool, Error> {
        let mut at = range.start;
        while at < range.end {
            if interrupt.is_set() {
                return Err(Error::interrupted());
            }
            let len = PIECE.min(range.end - at);
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
            (self.read)(at, &mut bytes)?;
            if !is_zero(&bytes) {
                return Ok(true);
            }
            at += len;
        }
        Ok(false)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    const ZEROES: [u8; 4096] = [0; 4096];
    let mut pieces = bytes.chunks(ZEROES.len());
    pieces.all(|piece| ZEROES.starts_with(piece))
}

/// The end of a place, and pieces that are spread evenly. Its start was read.
fn samples(size: u64) -> Vec<Range<u64>> {
    let step = (size / (SAMPLES + 1)).max(1);
    let spread = (1..=SAMPLES).map(|number| number * step);
    let spread = spread.map(|at| at..at.saturating_add(SAMPLE).min(size));
    let end = size.saturating_sub(PIECE)..size;
    std::iter::once(end).chain(spread).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether data is found in a storage of `size` bytes, of which one, at `byte`, is not zero.
    fn finds(size: u64, byte: u64, is_file: bool, holes: bool) -> bool {
        let hole = move |at| holes && (byte >> 20) != (at >> 20);
        let place = Place {
            size,
            is_file,
            extents: &|range| {
                let end = range.end.min((range.start | (PIECE - 1)) + 1);
                let allocation = match hole(range.start) {
                    true => Allocation::Hole,
                    false => Allocation::Data,
                };
                Ok(vec![(end - range.start, allocation)])
            },
            read: &|at, into| {
                assert!(!hole(at) || at == 0, "a hole at {at} was read");
                if let Some(at) = byte.checked_sub(at).and_then(|at| usize::try_from(at).ok())
                    && let Some(there) = into.get_mut(at)
                {
                    *there = 1;
                }
                Ok(())
            },
        };
        place.holds_data(&Interrupt::new()).unwrap()
    }

    #[test]
    fn little_data_is_read_completely() {
        let none = u64::MAX;
        for is_file in [false, true] {
            for byte in [0, 1, 5 << 20, (9 << 20) - 1] {
                assert!(finds(9 << 20, byte, is_file, false), "{byte}");
            }
            assert!(!finds(9 << 20, none, is_file, false));
            assert!(!finds(0, none, is_file, false));
            // Between samples, but known to be no hole.
            assert!(finds(2 << 30, (333 << 20) + 7, is_file, true));
            assert!(!finds(2 << 30, none, is_file, true));
        }
    }

    #[test]
    fn of_much_data_a_file_counts_as_data_and_others_are_sampled() {
        let (size, none) = (1 << 30, u64::MAX);
        assert!(finds(size, none, true, false));
        assert!(!finds(size, none, false, false));
        for byte in [0, PIECE - 1, size - PIECE, size - 1, 7 * (size / 65) + 5] {
            assert!(finds(size, byte, false, false), "{byte}");
        }
    }
}
