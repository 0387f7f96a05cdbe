//! Finds a partition of a disk by its number, in a GPT or an MBR.
//!
//! The numbers are those that the kernel and fdisk show: the place of the entry in a GPT or an MBR,
//! and, for the logical partitions of an MBR, the place in the chain of tables plus five. Where
//! programs could understand the tables differently, no partition is found: what is written to the
//! wrong place is lost. So are partitions that overlap others, or that do not lie within the disk.

mod disk;
mod error;
mod gpt;
mod mbr;

use std::ops::Range;

use luksmith_formats::image::partitions::{self, MbrEntry, PROTECTIVE};

use crate::backend::IoError;

pub use disk::Disk;
pub use error::{Fault, PartitionError, Table};

impl Disk<'_> {
    /// The bytes of a partition.
    ///
    /// # Errors
    /// [`PartitionError`] says why there is no such partition, or why it is not sure where it is.
    pub fn partition(&self, number: u32) -> Result<Range<u64>, PartitionError> {
        let Some(start) = self.bytes(0, 512)? else {
            return Err(PartitionError::NoTable);
        };
        let sector = self.sector_size()?;
        let Some(entries) = entries(&start) else {
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

    /// The numbers of the partitions that share bytes with a range. A partition that is just this
    /// range is left out, and so is an extended one, which holds others. Entries of every table
    /// that can be read count, so there are none where there is no table.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn crossed(&self, range: &Range<u64>) -> Result<Vec<u32>, IoError> {
        let sector = self.sector_size()?;
        let mut all = gpt::partitions(self, sector)?;
        if all.is_empty() {
            all = match self.bytes(0, 512)?.and_then(|start| entries(&start)) {
                Some(entries) => mbr::partitions(self, sector, &entries)?,
                None => Vec::new(),
            };
        }
        let crossed = all.into_iter().filter(|(_, partition)| {
            let partition = disk::in_bytes(partition, sector);
            partition != *range && disk::overlap(&partition, range)
        });
        Ok(crossed.map(|(number, _)| number).collect())
    }

    /// The size of the sectors in bytes. A GPT has its header in the second sector.
    fn sector_size(&self) -> Result<u64, IoError> {
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
}

/// The entries of an MBR, unless it is the boot sector of a file system.
fn entries(start: &[u8]) -> Option<[MbrEntry; 4]> {
    partitions::mbr(start)
        .filter(|entries| entries.iter().all(|entry| matches!(entry.boot, 0 | 0x80)))
}
