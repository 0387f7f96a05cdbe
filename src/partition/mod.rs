//! Finds a partition of a disk by its number, in a GPT or an MBR.
//!
//! The numbers are those that the kernel and fdisk show: the place of the entry in a GPT or an MBR,
//! and, for the logical partitions of an MBR, the place in the chain of tables plus five. Where
//! programs could understand the tables differently, no partition is found: what is written to the
//! wrong place is lost. So are partitions that overlap others, or that do not lie within the disk.

mod error;
mod gpt;
mod mbr;

use std::ops::Range;

use luksmith_formats::image::partitions::{self, PROTECTIVE};

use crate::backend::{Backend, IoError};
use crate::sectors::{Cipher, Sectors};

pub use error::{Fault, PartitionError, Table};

/// Reads the bytes from an offset on, all of them.
type Read<'a> = dyn Fn(u64, &mut [u8]) -> Result<(), IoError> + 'a;

/// A disk whose tables are read.
pub struct Disk<'a> {
    size: u64,
    sector: Option<u64>,
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

    /// The bytes of a partition.
    ///
    /// # Errors
    /// [`PartitionError`] says why there is no such partition, or why it is not sure where it is.
    pub fn partition(&self, number: u32) -> Result<Range<u64>, PartitionError> {
        let Some(start) = self.bytes(0, 512)? else {
            return Err(PartitionError::NoTable);
        };
        let entries = partitions::mbr(&start)
            .filter(|entries| entries.iter().all(|entry| matches!(entry.boot, 0 | 0x80)));
        let sector = self.sector_size()?;
        let Some(entries) = entries else {
            return Err(match gpt::begins(self, sector)? {
                true => Fault::NoProtection.into(),
                false => PartitionError::NoTable,
            });
        };
        match entries.iter().find(|entry| entry.kind == PROTECTIVE) {
            Some(protecting) if protecting.start != 1 => Err(Fault::Protection.into()),
            Some(_) => gpt::partition(self, sector, number),
            None if gpt::is_whole(self, sector)? => Err(Fault::TwoTables.into()),
            None => {
                // A GPT shows the size of the sectors of an image, an MBR does not.
                let sector = self.sector.unwrap_or(512);
                mbr::partition(self, sector, &entries, number)
            }
        }
    }

    /// The size of the sectors in bytes. A GPT has its header in the second sector.
    fn sector_size(&self) -> Result<u64, PartitionError> {
        if let Some(sector) = self.sector {
            return Ok(sector);
        }
        for sector in [512, 4096] {
            if gpt::begins(self, sector)? {
                return Ok(sector);
            }
        }
        Ok(512)
    }

    /// The number of whole sectors.
    fn sectors(&self, sector: u64) -> u64 {
        self.size / sector
    }

    /// `len` bytes from `offset` on; `None` if the disk ends before.
    fn bytes(&self, offset: u64, len: u64) -> Result<Option<Vec<u8>>, IoError> {
        if offset.checked_add(len).is_none_or(|end| end > self.size) {
            return Ok(None);
        }
        let mut bytes = vec![0; length(len)];
        (self.read)(offset, &mut bytes)?;
        Ok(Some(bytes))
    }
}

/// The bytes of a range of sectors. Both ends are within the disk.
fn in_bytes(sectors: &Range<u64>, sector: u64) -> Range<u64> {
    sectors.start * sector..sectors.end * sector
}

/// Whether two ranges share a sector.
fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
