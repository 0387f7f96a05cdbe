//! The layout of dm-integrity: sectors in areas, with the tags of an area before its sectors.
//!
//! `luksmith_formats::dm_integrity` has the bytes. Only a device at rest is read: what is in the
//! journal was not written to its place yet, and this module writes nothing.

use std::fmt;
use std::sync::Arc;

use luksmith_formats::FormatError;
use luksmith_formats::dm_integrity::{ENTRIES, Places, SUPERBLOCK, Superblock};
use luksmith_formats::luks2::AuthenticatedSegment;

use crate::backend::{Backend, IoError, Operation};
use crate::crypt::{AuthenticatedCrypt, IvSector};
use crate::door;
use crate::sectors::{Cipher, Sectors};

/// The journal is read in pieces of at most this many bytes, and of one section at least.
const PIECE: u64 = 1 << 20;

/// Why the data of a volume with tags cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntegrityError {
    /// The superblock is damaged, or says something for which the data is not read.
    #[error("the data cannot be opened")]
    Superblock(#[from] FormatError),
    /// The superblock does not fit the header.
    #[error("dm-integrity has tags of {tag} bytes for sectors of {sector}, the header {expected}")]
    Mismatch {
        /// The size of a tag in the superblock, in bytes.
        tag: usize,
        /// The size of a sector in the superblock, in bytes.
        sector: u32,
        /// The same by the header, in words.
        expected: String,
    },
    /// A write is in the journal, and not in its place yet.
    #[error("the journal of dm-integrity has writes that are not in their places yet")]
    Journal {
        /// The section of the journal that has the first one.
        section: u32,
    },
    /// The storage failed.
    #[error("cannot read what dm-integrity keeps")]
    Io(#[from] IoError),
}

/// Reads where the data and the tags of a segment are, on the storage of the data.
pub(crate) fn places(
    storage: &dyn Backend,
    segment: &AuthenticatedSegment,
) -> Result<Places, IntegrityError> {
    let (start, size) = (segment.offset, storage.geometry().size);
    let superblock = match start.checked_add(SUPERBLOCK as u64) {
        Some(end) if end <= size => door::read(storage, start, SUPERBLOCK)?,
        // The storage ends before it: it is none.
        _ => Vec::new(),
    };
    let superblock = Superblock::parse(&superblock, start)?;
    let found = (usize::from(superblock.tag_size), superblock.sector_size());
    let expected = (segment.encryption.tag_size(), segment.sector_size);
    if found == expected {
        return Ok(superblock.places(start, size)?);
    }
    Err(IntegrityError::Mismatch {
        tag: found.0,
        sector: found.1,
        expected: format!("tags of {} bytes for sectors of {}", expected.0, expected.1),
    })
}

/// Checks that no write is in the journal only.
pub(crate) fn check_journal(storage: &dyn Backend, places: &Places) -> Result<(), IntegrityError> {
    let (journal, size) = (places.journal(), places.section_size().max(1));
    let most = (PIECE / size).max(1);
    let (mut at, mut section) = (journal.start, 0);
    while section < places.sections() {
        let count = most.min((places.sections() - section).into());
        let bytes = door::read(storage, at, length(count * size))?;
        for part in bytes.chunks(length(size)) {
            let entries = part.first_chunk::<ENTRIES>();
            if entries.is_none_or(|entries| places.used_entry(entries).is_some()) {
                return Err(IntegrityError::Journal { section });
            }
            section += 1;
        }
        at += count * size;
    }
    Ok(())
}

/// Sectors with tags, and their cipher.
pub(crate) struct Tagged {
    /// The storage that holds both.
    pub(crate) storage: Arc<dyn Backend>,
    /// Where they are on it.
    pub(crate) places: Places,
    /// The cipher.
    pub(crate) crypt: AuthenticatedCrypt,
}

/// Consecutive sectors and their tags on the storage.
pub(crate) struct TaggedRun<'a> {
    storage: &'a dyn Backend,
    /// The offset of the first sector, and of its tag.
    at: u64,
    tags_at: u64,
    tags_len: usize,
    /// The length of the sectors in bytes.
    pub(crate) len: usize,
    /// The number of the first sector.
    pub(crate) number: IvSector,
}

impl Tagged {
    /// The whole sectors at the start of a range, up to the end of their area.
    ///
    /// # Errors
    /// Returns [`IoError::OutOfRange`] for a range that is not in whole sectors of the data.
    pub(crate) fn run(&self, start: u64, end: u64) -> Result<TaggedRun<'_>, IoError> {
        let run = self.places.run(start..end).ok_or(IoError::OutOfRange {
            operation: Operation::Read,
            offset: start,
            len: end.saturating_sub(start),
            size: self.places.size(),
        })?;
        let sectors = run.len / u64::from(self.places.sector_size());
        Ok(TaggedRun {
            storage: &*self.storage,
            at: run.data,
            tags_at: run.tags,
            tags_len: length(sectors) * self.places.tag_size(),
            len: length(run.len),
            number: IvSector(0).after_bytes(start),
        })
    }
}

impl TaggedRun<'_> {
    /// Reads the sectors, and their tags.
    pub(crate) fn read(&self) -> Result<(Sectors<Cipher>, Vec<u8>), IoError> {
        let tags = door::read(self.storage, self.tags_at, self.tags_len)?;
        let mut sectors = Sectors::<Cipher>::with_len(self.len);
        let block = u64::from(self.storage.geometry().block_size.max(1));
        if self.at.is_multiple_of(block) && (self.len as u64).is_multiple_of(block) {
            self.storage.read_at(self.at, &mut sectors)?;
        } else {
            let bytes = door::read(self.storage, self.at, self.len)?;
            sectors.as_mut_slice().copy_from_slice(&bytes);
        }
        Ok((sectors, tags))
    }
}

impl fmt::Debug for Tagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tagged")
            .field("places", &self.places)
            .field("crypt", &self.crypt)
            .finish_non_exhaustive()
    }
}

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
