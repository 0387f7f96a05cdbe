//! A partition of a GPT (UEFI Specification 2.10, section 5).
//!
//! The first copy of the table has to be valid. If it is not, the second copy only tells where the
//! partition was. If both copies are valid, they have to agree on the partition.

use std::ops::Range;

use luksmith_formats::image::partitions::{self, Crc32, Gpt};

use super::disk::{Disk, in_bytes, length, overlap};
use super::error::{Fault, PartitionError, Table};
use crate::backend::IoError;

/// The most bytes of the entries. Usually they are 16384.
const MOST: u64 = 1 << 20;

/// A valid copy of a GPT.
struct Copy {
    header: Gpt,
    /// The first sector and the one after the last, of each entry in use.
    entries: Vec<Option<Range<u64>>>,
}

/// Why a copy of a GPT is not used.
enum Unusable {
    Fault(Fault),
    Io(IoError),
}

impl From<IoError> for Unusable {
    fn from(error: IoError) -> Self {
        Self::Io(error)
    }
}

/// Whether the second sector begins as the header of a GPT does.
pub(super) fn begins(disk: &Disk<'_>, sector: u64) -> Result<bool, IoError> {
    let start = disk.bytes(sector, sector)?;
    Ok(start.is_some_and(|header| Gpt::parse(&header).is_some()))
}

/// Whether there is a valid header in the second sector.
pub(super) fn is_whole(disk: &Disk<'_>, sector: u64) -> Result<bool, IoError> {
    match header(disk, sector, 1) {
        Ok(_) => Ok(true),
        Err(Unusable::Fault(_)) => Ok(false),
        Err(Unusable::Io(error)) => Err(error),
    }
}

/// The bytes of a partition.
pub(super) fn partition(
    disk: &Disk<'_>,
    sector: u64,
    number: u32,
) -> Result<Range<u64>, PartitionError> {
    let copy = match copy(disk, sector, 1) {
        Ok(copy) => copy,
        Err(Unusable::Io(error)) => return Err(error.into()),
        Err(Unusable::Fault(fault)) => {
            let backup = last_copy(disk, sector, number)?;
            return Err(PartitionError::Damaged { fault, backup });
        }
    };
    let found = copy.get(number).ok_or_else(|| copy.none(number))?;
    let (first, last) = (copy.header.first_usable, copy.header.last_usable);
    if found.is_empty() || found.start < first || found.end > last.saturating_add(1) {
        return Err(PartitionError::Outside(number));
    }
    if let Some(other) = copy.overlapping(number, &found) {
        let other = Some(other);
        return Err(PartitionError::Overlap { number, other });
    }
    match self::copy(disk, sector, copy.header.alternate_lba) {
        Ok(second) if second.get(number) != Some(found.clone()) => Err(Fault::Copies.into()),
        Err(Unusable::Io(error)) => Err(error.into()),
        // The kernel uses the first copy without the second one too.
        Ok(_) | Err(Unusable::Fault(_)) => Ok(in_bytes(&found, sector)),
    }
}

/// The numbers and the sectors of all partitions, by the first copy, or else the last one. There
/// are none without a valid copy.
pub(super) fn partitions(disk: &Disk<'_>, sector: u64) -> Result<Vec<(u32, Range<u64>)>, IoError> {
    for lba in [1, disk.sectors(sector).saturating_sub(1)] {
        match copy(disk, sector, lba) {
            Ok(copy) => {
                let used = copy.used().map(|(number, range)| (number, range.clone()));
                return Ok(used.collect());
            }
            Err(Unusable::Fault(_)) => {}
            Err(Unusable::Io(error)) => return Err(error),
        }
    }
    Ok(Vec::new())
}

/// The bytes of a partition by the copy in the last sector, if it is valid.
fn last_copy(
    disk: &Disk<'_>,
    sector: u64,
    number: u32,
) -> Result<Option<Range<u64>>, PartitionError> {
    let Some(last) = disk.sectors(sector).checked_sub(1) else {
        return Ok(None);
    };
    match copy(disk, sector, last) {
        Ok(copy) => {
            let found = copy.get(number);
            let found = found.filter(|found| !found.is_empty() && found.end <= last);
            Ok(found.map(|found| in_bytes(&found, sector)))
        }
        Err(Unusable::Fault(_)) => Ok(None),
        Err(Unusable::Io(error)) => Err(error.into()),
    }
}

impl Copy {
    fn get(&self, number: u32) -> Option<Range<u64>> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.entries.get(index)?.clone()
    }

    /// The entries in use, with their numbers.
    fn used(&self) -> impl Iterator<Item = (u32, &Range<u64>)> {
        (1_u32..)
            .zip(&self.entries)
            .filter_map(|(number, entry)| Some((number, entry.as_ref()?)))
    }

    fn none(&self, number: u32) -> PartitionError {
        PartitionError::NoSuch {
            number,
            table: Table::Gpt,
            there: self.used().map(|(number, _)| number).collect(),
        }
    }

    fn overlapping(&self, number: u32, found: &Range<u64>) -> Option<u32> {
        self.used()
            .find(|(other, range)| *other != number && overlap(found, range))
            .map(|(other, _)| other)
    }
}

/// Reads the header in a sector. What the kernel checks is checked.
fn header(disk: &Disk<'_>, sector: u64, lba: u64) -> Result<Gpt, Unusable> {
    let at = lba.checked_mul(sector);
    let bytes = match at {
        Some(at) => disk.bytes(at, sector)?,
        None => None,
    };
    let bytes = bytes.ok_or(Unusable::Fault(Fault::NoHeader))?;
    let gpt = Gpt::parse(&bytes).ok_or(Unusable::Fault(Fault::NoHeader))?;
    let length = u64::from(gpt.entries) * u64::from(gpt.entry_size);
    let sectors = disk.sectors(sector);
    let good = u64::from(gpt.header_size) >= 92
        && gpt.expected_checksum(&bytes) == Some(gpt.checksum)
        && gpt.my_lba == lba
        && gpt.entry_size >= 128
        && gpt.entry_size.is_power_of_two()
        && (1..=MOST).contains(&length)
        && gpt.first_usable <= gpt.last_usable.saturating_add(1)
        && gpt.last_usable < sectors;
    // The entries of the first copy are before the usable sectors, those of the second after them.
    let entries = gpt.entries_lba..gpt.entries_lba.saturating_add(length.div_ceil(sector));
    let placed = match lba {
        1 => entries.start >= 2 && entries.end <= gpt.first_usable,
        _ => entries.start > gpt.last_usable && entries.end <= lba,
    };
    match good && placed {
        true => Ok(gpt),
        false => Err(Unusable::Fault(Fault::Header)),
    }
}

/// Reads a copy of the GPT, by the sector of its header.
fn copy(disk: &Disk<'_>, sector: u64, lba: u64) -> Result<Copy, Unusable> {
    let header = header(disk, sector, lba)?;
    let length_of_all = u64::from(header.entries) * u64::from(header.entry_size);
    let bytes = match header.entries_lba.checked_mul(sector) {
        Some(at) => disk.bytes(at, length_of_all)?,
        None => None,
    };
    let bytes = bytes.ok_or(Unusable::Fault(Fault::Entries))?;
    let mut crc = Crc32::default();
    crc.update(&bytes);
    if crc.value() != header.entries_checksum {
        return Err(Unusable::Fault(Fault::Entries));
    }
    let size = length(header.entry_size.into());
    let entries = bytes.chunks_exact(size).map(|entry| {
        let (first, last) = partitions::gpt_entry(entry)?;
        Some(first..last.saturating_add(1))
    });
    let entries = entries.collect();
    Ok(Copy { header, entries })
}
