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

use luksmith_formats::image::partitions::{self, PROTECTIVE};

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
}
