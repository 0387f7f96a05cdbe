//! A disk whose tables are read, and its sectors.

use std::ops::Range;

use crate::backend::{Backend, IoError};
use crate::sectors::{Cipher, Sectors};

/// Reads the bytes from an offset on, all of them.
type Read<'a> = dyn Fn(u64, &mut [u8]) -> Result<(), IoError> + 'a;

/// A disk whose tables are read.
pub struct Disk<'a> {
    size: u64,
    pub(super) sector: Option<u64>,
    read: Box<Read<'a>>,
}

impl<'a> Disk<'a> {
    /// A disk of `size` bytes. `read` fills a buffer with the bytes from an offset on.
    pub fn new(size: u64, read: impl Fn(u64, &mut [u8]) -> Result<(), IoError> + 'a) -> Self {
        Self {
            size,
            sector: None,
            read: Box::new(read),
        }
    }

    /// A disk in a storage.
    pub fn of(storage: &'a dyn Backend) -> Self {
        let geometry = storage.geometry();
        let block = u64::from(geometry.block_size.max(1));
        Self::new(geometry.size, move |at, into| {
            let end = at.saturating_add(into.len() as u64);
            let (first, last) = (at - at % block, end.next_multiple_of(block));
            let mut sectors = Sectors::<Cipher>::with_len(length(last - first));
            storage.read_at(first, &mut sectors)?;
            let from = length(at - first);
            let read = sectors.as_slice().get(from..).unwrap_or_default();
            for (to, from) in into.iter_mut().zip(read) {
                *to = *from;
            }
            Ok(())
        })
    }

    /// Sets the size of the disk's sectors in bytes. Without it, they are 4096 bytes if a GPT shows
    /// that, and else 512.
    #[must_use]
    pub fn with_sector_size(mut self, sector_size: u32) -> Self {
        self.sector = Some(u64::from(sector_size).max(512));
        self
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills a buffer with the bytes from an offset on.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        (self.read)(offset, into)
    }

    /// The number of whole sectors.
    pub(super) fn sectors(&self, sector: u64) -> u64 {
        self.size / sector
    }

    /// `len` bytes from `offset` on; `None` if the disk ends before.
    pub(super) fn bytes(&self, offset: u64, len: u64) -> Result<Option<Vec<u8>>, IoError> {
        if offset.checked_add(len).is_none_or(|end| end > self.size) {
            return Ok(None);
        }
        let mut bytes = vec![0; length(len)];
        (self.read)(offset, &mut bytes)?;
        Ok(Some(bytes))
    }
}

/// The bytes of a range of sectors.
pub(super) fn in_bytes(sectors: &Range<u64>, sector: u64) -> Range<u64> {
    sectors.start.saturating_mul(sector)..sectors.end.saturating_mul(sector)
}

/// Whether two ranges share a sector, or a byte.
pub(super) fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

pub(super) fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
