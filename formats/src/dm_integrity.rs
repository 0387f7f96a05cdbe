//! The superblock of dm-integrity, where it keeps sectors and their tags, and its journal.
//!
//! Linux has no specification of these bytes: they are as `drivers/md/dm-integrity.c` reads and
//! writes them. Numbers are little-endian. A device begins with a superblock of 8 sectors and the
//! journal. Areas follow, each of which has the tags of 2^n sectors and then these sectors.
//!
//! Only what is as it will stay is described as readable: a journal with entries, a bitmap with set
//! bits, or tags that are being computed mean that data and tags do not fit yet.

use alloc::format;
use core::ops::Range;

use crate::error::FormatError;
use crate::image::fields::{array, le16, le32, le64};

/// The bytes of a superblock that have a meaning.
pub const SUPERBLOCK: usize = 512;
/// The bytes of the entries of a journal section, with which the section begins.
pub const ENTRIES: usize = 4096;
/// The largest journal that is looked at, in bytes. The kernel makes none above 64 MiB.
pub const LARGEST_JOURNAL: u64 = 256 << 20;

const MAGIC: [u8; 8] = *b"integrt\0";
const SECTOR: u64 = 512;
/// The sectors of a superblock, and of the entries of a journal section.
const HEAD: u64 = 8;
/// The largest version: inline tags.
const LAST_VERSION: u8 = 6;
/// The bytes of a journal sector that are entries. Its commit ID follows them.
const ENTRY_ROOM: usize = 504;
/// The bytes of a code of a journal sector, which are before the commit ID if there is one.
const JOURNAL_CODE: usize = 8;
/// The largest tag: one entry with it and the ends of 8 sectors has room in a journal sector.
const LARGEST_TAG: u16 = 424;

const JOURNAL_CODES: u32 = 1;
const RECALCULATING: u32 = 2;
const DIRTY_BITMAP: u32 = 4;
const FIXED_PADDING: u32 = 8;
const FIXED_HMAC: u32 = 16;
const INLINE: u32 = 32;
const KNOWN: u32 =
    JOURNAL_CODES | RECALCULATING | DIRTY_BITMAP | FIXED_PADDING | FIXED_HMAC | INLINE;

/// A superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Superblock {
    /// The version, 1 to 6. The flags say what it means.
    pub version: u8,
    /// The number of sectors of 512 bytes in an area, as the exponent of a power of two.
    pub log2_interleave_sectors: u8,
    /// The size of a tag in bytes.
    pub tag_size: u16,
    /// The number of sections of the journal.
    pub journal_sections: u32,
    /// The size of the data in sectors of 512 bytes.
    pub provided_data_sectors: u64,
    /// The flags. All of them are known.
    flags: u32,
    /// The size of a sector that has a tag, in sectors of 512 bytes: the exponent of a power of
    /// two.
    log2_sectors_per_block: u8,
}

impl Superblock {
    /// Reads a superblock, which is at `offset` of the storage.
    ///
    /// # Errors
    /// Returns [`FormatError`] if it is none, has an unknown version or flag, or a number that the
    /// kernel refuses.
    pub fn parse(bytes: &[u8], offset: u64) -> Result<Self, FormatError> {
        let malformed = |field: &str, at: u64, cause: &str| {
            let at = offset.saturating_add(at);
            Err(FormatError::malformed(
                format!("dm-integrity {field}"),
                at,
                cause,
            ))
        };
        if bytes.len() < SUPERBLOCK || !bytes.starts_with(&MAGIC) {
            return malformed("superblock", 0, "there is none where the data begins");
        }
        let [version, log2_interleave_sectors] = array(bytes, 8);
        let [log2_sectors_per_block] = array(bytes, 28);
        let flags = le32(bytes, 24);
        if version == 0 || version > LAST_VERSION {
            let cause = format!("{version} is not known; 1 to {LAST_VERSION} are");
            let at = offset.saturating_add(8);
            return Err(FormatError::unsupported("dm-integrity version", at, cause));
        }
        let unknown = flags & !KNOWN;
        if unknown != 0 {
            let cause = format!("flags that are not known: {unknown:#x}");
            let at = offset.saturating_add(24);
            return Err(FormatError::unsupported("dm-integrity flags", at, cause));
        }
        let superblock = Self {
            version,
            log2_interleave_sectors,
            tag_size: le16(bytes, 10),
            journal_sections: le32(bytes, 12),
            provided_data_sectors: le64(bytes, 16),
            flags,
            log2_sectors_per_block,
        };
        if !(3..=31).contains(&log2_interleave_sectors) {
            return malformed("interleave_sectors", 9, "the areas have no possible size");
        }
        if !(1..=LARGEST_TAG).contains(&superblock.tag_size) {
            return malformed("tag_size", 10, "no tag has this size");
        }
        if log2_sectors_per_block > 3 {
            return malformed("sectors_per_block", 28, "there are no sectors of this size");
        }
        let (sectors, of_block) = (superblock.provided_data_sectors, superblock.sector_size());
        let unit = u64::from(of_block).checked_div(SECTOR).unwrap_or(1);
        if sectors == 0 || !sectors.is_multiple_of(unit) {
            return malformed(
                "provided_data_sectors",
                16,
                "the data is not a number of sectors",
            );
        }
        if superblock.journal_sections == 0 && flags & INLINE == 0 {
            return malformed("journal_sections", 12, "there is no journal");
        }
        Ok(superblock)
    }

    /// The size of a sector that has a tag, in bytes.
    pub fn sector_size(&self) -> u32 {
        512_u32
            .checked_shl(self.log2_sectors_per_block.into())
            .unwrap_or(512)
    }

    /// Where the data and the tags are, if the superblock begins at `start` of a storage of `size`
    /// bytes. The data and the journal are inside of the storage.
    ///
    /// # Errors
    /// Returns [`FormatError`] if data and tags do not fit yet, which one of the flags says, if
    /// they have no such places, or if they would be outside of the storage.
    pub fn places(&self, start: u64, size: u64) -> Result<Places, FormatError> {
        for (flag, cause) in [
            (RECALCULATING, "the tags are being computed"),
            (
                DIRTY_BITMAP,
                "the bitmap says where data and tags may not fit",
            ),
            (INLINE, "the tags are in the sectors of the device"),
            (JOURNAL_CODES, "the journal has codes of authentication"),
        ] {
            if self.flags & flag != 0 {
                let at = start.saturating_add(24);
                return Err(FormatError::unsupported("dm-integrity flags", at, cause));
            }
        }
        let places = self.computed(start).ok_or_else(|| {
            let at = start.saturating_add(8);
            FormatError::malformed("dm-integrity superblock", at, "its numbers are too large")
        })?;
        let journal = places.first.saturating_sub(start);
        if journal > LARGEST_JOURNAL {
            let cause = format!("{journal} bytes; at most {LARGEST_JOURNAL} are read");
            let at = start.saturating_add(12);
            return Err(FormatError::over_limit("dm-integrity journal", at, cause));
        }
        if places.end > size {
            let cause = format!("data to byte {}, the storage ends at {size}", places.end);
            let at = start.saturating_add(16);
            return Err(FormatError::malformed(
                "dm-integrity provided_data_sectors",
                at,
                cause,
            ));
        }
        Ok(places)
    }

    /// The places, or nothing if one of them has more than 64 bits.
    fn computed(&self, start: u64) -> Option<Places> {
        let tag_size = usize::from(self.tag_size);
        let per_block = 1_usize.checked_shl(self.log2_sectors_per_block.into())?;
        let entry_size = per_block
            .checked_add(1)?
            .checked_mul(8)?
            .checked_add(tag_size)?
            .checked_next_multiple_of(8)?;
        let room = match self.flags & JOURNAL_CODES {
            0 => ENTRY_ROOM,
            _ => ENTRY_ROOM.checked_sub(JOURNAL_CODE)?,
        };
        let entries_per_sector = room.checked_div(entry_size)?;
        let data = u64::try_from(entries_per_sector.checked_mul(per_block)?).ok()?;
        let section = data.checked_mul(HEAD)?.checked_add(HEAD)?;
        let journal = section.checked_mul(self.journal_sections.into())?;
        let first = journal.checked_add(HEAD)?.checked_mul(SECTOR)?;

        let padding = match self.flags & FIXED_PADDING {
            // The padding of the first versions is kept.
            0 => SECTOR << 8,
            _ => SECTOR << 3,
        };
        let log2_area = self.log2_interleave_sectors;
        let blocks = log2_area.checked_sub(self.log2_sectors_per_block)?;
        let tags = u64::from(self.tag_size).checked_shl(blocks.into())?;
        let mut places = Places {
            start,
            first: start.checked_add(first)?,
            end: 0,
            size: self.provided_data_sectors.checked_mul(SECTOR)?,
            area: SECTOR.checked_shl(log2_area.into())?,
            tags: tags.checked_next_multiple_of(padding)?,
            sector_size: self.sector_size(),
            tag_size,
            section: section.checked_mul(SECTOR)?,
            sections: self.journal_sections,
            entry_size,
            entries_per_sector,
        };
        let last = places.size.checked_sub(u64::from(places.sector_size))?;
        let (data, _) = places.of(last)?;
        places.end = data.checked_add(places.sector_size.into())?;
        Some(places)
    }
}

/// Where the data, the tags and the journal of a device are. Offsets are in bytes of the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    start: u64,
    /// Where the first area begins, after the journal.
    first: u64,
    /// Where the last sector ends.
    end: u64,
    size: u64,
    /// The data of an area.
    area: u64,
    /// The room for the tags of an area.
    tags: u64,
    sector_size: u32,
    tag_size: usize,
    section: u64,
    sections: u32,
    entry_size: usize,
    entries_per_sector: usize,
}

/// Consecutive sectors and their tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Run {
    /// The offset of the first sector on the storage.
    pub data: u64,
    /// The offset of its tag on the storage. The others follow it.
    pub tags: u64,
    /// The length of the sectors in bytes.
    pub len: u64,
}

impl Places {
    /// The size of the data in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The size of a sector that has a tag, in bytes.
    pub fn sector_size(&self) -> u32 {
        self.sector_size
    }

    /// The size of a tag in bytes.
    pub fn tag_size(&self) -> usize {
        self.tag_size
    }

    /// Where the device ends on the storage: after the last sector.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The sectors at the start of a range of the data, up to the end of their area. Nothing if the
    /// range is empty, not in whole sectors, or outside of the data.
    pub fn run(&self, range: Range<u64>) -> Option<Run> {
        let unit = u64::from(self.sector_size);
        let whole = range.start.is_multiple_of(unit) && range.end.is_multiple_of(unit);
        if !whole || range.start >= range.end || range.end > self.size {
            return None;
        }
        let (data, tags) = self.of(range.start)?;
        let within = range.start.checked_rem(self.area)?;
        let len = range.end.checked_sub(range.start)?;
        let len = len.min(self.area.checked_sub(within)?);
        Some(Run { data, tags, len })
    }

    /// The offsets of the sector at an offset of the data, and of its tag.
    fn of(&self, at: u64) -> Option<(u64, u64)> {
        let area = at.checked_div(self.area)?;
        let within = at.checked_rem(self.area)?;
        let before = area.checked_mul(self.area.checked_add(self.tags)?)?;
        let begin = self.first.checked_add(before)?;
        let block = within.checked_div(self.sector_size.into())?;
        let tag = block.checked_mul(u64::try_from(self.tag_size).ok()?)?;
        let data = begin.checked_add(self.tags)?.checked_add(within)?;
        Some((data, begin.checked_add(tag)?))
    }

    /// The range of the journal.
    pub fn journal(&self) -> Range<u64> {
        self.start.saturating_add(HEAD.saturating_mul(SECTOR))..self.first
    }

    /// The size of a section of the journal in bytes. It begins with [`ENTRIES`] bytes of entries.
    pub fn section_size(&self) -> u64 {
        self.section
    }

    /// The number of sections of the journal.
    pub fn sections(&self) -> u32 {
        self.sections
    }

    /// The first entry of a section that is in use, by its entries: the number of its sector. An
    /// entry of a write that was not finished is in use too. Nothing if there is none.
    pub fn used_entry(&self, entries: &[u8; ENTRIES]) -> Option<u64> {
        let sectors = entries.as_chunks::<512>().0.iter();
        let mut all = sectors.flat_map(|sector| {
            let entries = sector.chunks(self.entry_size.max(1));
            entries.take(self.entries_per_sector)
        });
        all.find(|entry| le32(entry, 4) != u32::MAX)
            .map(|entry| le64(entry, 0))
    }
}

#[cfg(test)]
mod tests;
