//! Consecutive parts of the disk in the image.

use std::ops::Range;

use super::map::{Compressed, Map, Place};
use crate::backend::{Backend, IoError};

/// The most clusters that one lookup in the map covers.
const LOOK: u64 = 1 << 16;

/// The start of a range of the disk, as far as it is consecutive in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The length in bytes.
    pub(crate) len: u64,
    /// Where the first byte is.
    pub(crate) stored: Stored,
}

/// Where the bytes of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// The bytes are not stored, and read as zeroes.
    Nowhere,
    /// The bytes start at this offset of the image, and may be overwritten there.
    Here(u64),
    /// The bytes start at this offset of the image. A snapshot uses them too, so they must not be
    /// overwritten.
    Kept(u64),
    /// The bytes are compressed and not encrypted. They start at this offset of the inflated
    /// cluster.
    Compressed(Compressed, u64),
}

impl Map {
    /// The run at the start of a range of the disk.
    pub(super) fn run(&self, storage: &dyn Backend, range: Range<u64>) -> Result<Run, IoError> {
        let size = self.cluster();
        let (first, within) = (range.start / size, range.start % size);
        let clusters = range.end.div_ceil(size).saturating_sub(first);
        let place = self.place(storage, first)?;
        let mut end = first + 1;
        let most = first + clusters.min(LOOK);
        while end < most {
            let skipped = self.without_table(end);
            if let (Place::Hole, Some(next)) = (place, skipped) {
                end = next;
                continue;
            }
            let on = (end - first) * size;
            let next = match place {
                Place::Hole => Place::Hole,
                Place::Own(at) => Place::Own(at.saturating_add(on)),
                Place::Shared(at) => Place::Shared(at.saturating_add(on)),
                Place::Compressed(_) => break,
            };
            if self.place(storage, end)? != next {
                break;
            }
            end += 1;
        }
        let len = end.saturating_mul(size).min(range.end) - range.start;
        let stored = match place {
            Place::Hole => Stored::Nowhere,
            Place::Own(at) => Stored::Here(at + within),
            Place::Shared(at) => Stored::Kept(at + within),
            Place::Compressed(compressed) => Stored::Compressed(compressed, within),
        };
        Ok(Run { len, stored })
    }
}
