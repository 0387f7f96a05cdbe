//! Whole blocks of a volume: read and compared with their tags, and written with their tags.
//!
//! The caller has locked the blocks: shared to read, and exclusively to write.

use std::ops::Range;
use std::sync::Arc;

use luksmith_formats::trust::tags::{BLOCK, LOST, NEVER, Tag};

use super::alarm::Alarm;
use super::error::TagsError;
use super::key::{BLOCK_LEN, TagKey};
use super::store::Store;
use crate::backend::{Backend, IoError, Operation};
use crate::crypt::{IvSector, SectorCrypt};
use crate::sectors::{Cipher, Plain, Sectors};

/// The most blocks that one change of the log has.
pub(super) const MOST: u64 = 1024;

/// The part of a storage that has the data of a volume, and how that is encrypted.
pub struct Covered {
    pub(super) offset: u64,
    pub(super) first_iv: IvSector,
    pub(super) crypt: SectorCrypt,
}

impl Covered {
    /// The data begins at this offset of the storage, its first sector has this IV, and it is
    /// encrypted like this.
    #[must_use]
    pub fn new(offset: u64, first_iv: IvSector, crypt: SectorCrypt) -> Self {
        Self {
            offset,
            first_iv,
            crypt,
        }
    }
}

/// The blocks of a volume.
pub(super) struct Blocks {
    pub(super) storage: Arc<dyn Backend>,
    pub(super) covered: Covered,
    pub(super) key: TagKey,
    pub(super) store: Arc<Store>,
    pub(super) alarm: Alarm,
}

/// Why blocks were not read.
pub(super) enum Unread {
    /// One of them can have several contents. [`Blocks::settle`] decides.
    Doubtful,
    Failed(IoError),
}

impl From<IoError> for Unread {
    fn from(error: IoError) -> Self {
        Self::Failed(error)
    }
}

impl Blocks {
    /// The number of blocks.
    pub(super) fn count(&self) -> u64 {
        self.store.size().div_ceil(BLOCK)
    }

    /// The bytes of blocks, from the start of the data on.
    pub(super) fn bytes(&self, blocks: &Range<u64>) -> Range<u64> {
        let size = self.store.size();
        let end = |block: u64| block.saturating_mul(BLOCK).min(size);
        end(blocks.start)..end(blocks.end)
    }

    /// The offset of a block on the storage.
    pub(super) fn place(&self, block: u64) -> u64 {
        self.covered.offset + block * BLOCK
    }

    /// Reads all bytes of blocks.
    pub(super) fn read(
        &self,
        blocks: Range<u64>,
        into: &mut Sectors<Cipher>,
    ) -> Result<(), Unread> {
        let place = self.place(blocks.start);
        let known = self.store.tags(blocks.clone());
        let known = known.map_err(|error| error.of(Operation::Read, place))?;
        if known.is_doubtful {
            return Err(Unread::Doubtful);
        }
        let tags = &known.tags;
        if let Some(lost) = tags.iter().position(|tag| *tag == LOST) {
            return Err(self.altered(blocks.start + lost as u64).into());
        }
        if !tags.contains(&NEVER) {
            self.storage.read_at(place, into)?;
            return Ok(self.compare(blocks.start, into.as_slice(), tags)?);
        }
        let (mut rest, mut block) = (into.as_mut_slice(), blocks.start);
        for run in tags.chunk_by(|one, other| (*one == NEVER) == (*other == NEVER)) {
            let bytes = self.bytes(&(block..block + run.len() as u64));
            let (now, later) = rest.split_at_mut(length(&bytes));
            let part = match run.contains(&NEVER) {
                true => self.zeroes(&bytes),
                false => {
                    let mut part = Sectors::<Cipher>::with_len(now.len());
                    self.storage.read_at(self.place(block), &mut part)?;
                    self.compare(block, part.as_slice(), run)?;
                    part
                }
            };
            now.copy_from_slice(part.as_slice());
            (rest, block) = (later, block + run.len() as u64);
        }
        Ok(())
    }

    /// Reads all bytes of blocks that are locked exclusively.
    pub(super) fn read_locked(
        &self,
        blocks: Range<u64>,
        into: &mut Sectors<Cipher>,
    ) -> Result<(), IoError> {
        loop {
            match self.read(blocks.clone(), into) {
                Ok(()) => return Ok(()),
                Err(Unread::Failed(error)) => return Err(error),
                Err(Unread::Doubtful) => self.settle(blocks.clone())?,
            }
        }
    }

    /// Writes all bytes of at most [`MOST`] blocks that are locked exclusively.
    pub(super) fn write(&self, block: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        let place = self.place(block);
        let tags = self.key.tags(block, from.as_slice());
        let begun = self.store.begin_write(block, &tags);
        let begun = begun.map_err(|error| error.of(Operation::Write, place))?;
        let written = self.storage.write_at(place, from);
        match &written {
            Ok(()) => self.store.end(begun, block, &tags),
            Err(_) => self.store.fail(begun, block, &tags),
        }
        written
    }

    /// Makes blocks read as zeroes that are locked exclusively. The storage may free their space.
    pub(super) fn forget(&self, blocks: Range<u64>) -> Result<(), IoError> {
        let place = self.place(blocks.start);
        let failed = |error: TagsError| error.of(Operation::Discard, place);
        let known = self.store.tags(blocks.clone()).map_err(failed)?;
        if !known.is_doubtful && known.tags.iter().all(|tag| *tag == NEVER) {
            return Ok(());
        }
        let count = u32::try_from(known.tags.len()).unwrap_or(u32::MAX);
        let begun = self.store.begin_never(blocks.start, count);
        let begun = begun.map_err(failed)?;
        let bytes = self.bytes(&blocks);
        let at = self.covered.offset;
        let discarded = (self.storage).discard(at + bytes.start..at + bytes.end);
        // Whatever the storage has now, it is not read.
        let never = vec![NEVER; known.tags.len()];
        self.store.end(begun, blocks.start, &never);
        match discarded {
            Err(IoError::Unsupported(_)) => Ok(()),
            discarded => discarded,
        }
    }

    /// Finds out which content the blocks have that can have several, and keeps to it.
    pub(super) fn settle(&self, blocks: Range<u64>) -> Result<(), IoError> {
        for block in blocks {
            let Some(contents) = self.store.contents(block) else {
                continue;
            };
            // What is read now is durable.
            self.flush()?;
            let found = self.one_of(block, &contents)?;
            let settled = self.store.settle(block, found);
            settled.map_err(|error| error.of(Operation::Read, self.place(block)))?;
        }
        Ok(())
    }

    /// Which of these tags a block has, if it has one of them.
    pub(super) fn one_of(&self, block: u64, contents: &[Tag]) -> Result<Option<Tag>, IoError> {
        let bytes = self.bytes(&(block..block + 1));
        let mut content = Sectors::<Cipher>::with_len(length(&bytes));
        self.storage.read_at(self.place(block), &mut content)?;
        let tags = self.key.tags(block, content.as_slice());
        let has = |tag: &Tag| contents.contains(tag).then_some(*tag);
        Ok(tags.first().and_then(has).or_else(|| has(&NEVER)))
    }

    /// The blocks of a range that are not as they were written. Only those that were.
    pub(super) fn differing(&self, blocks: Range<u64>) -> Result<Vec<u64>, Unread> {
        let place = self.place(blocks.start);
        let known = self.store.tags(blocks.clone());
        let known = known.map_err(|error| error.of(Operation::Read, place))?;
        if known.is_doubtful {
            return Err(Unread::Doubtful);
        }
        let (mut differing, mut block) = (Vec::new(), blocks.start);
        for run in (known.tags).chunk_by(|one, other| (*one == NEVER) == (*other == NEVER)) {
            let end = block + run.len() as u64;
            if !run.contains(&NEVER) {
                let len = length(&self.bytes(&(block..end)));
                let mut content = Sectors::<Cipher>::with_len(len);
                self.storage.read_at(self.place(block), &mut content)?;
                let tags = self.key.tags(block, content.as_slice());
                let numbered = (block..).zip(run.iter().zip(&tags));
                let other = numbered.filter(|(_, (known, found))| known != found);
                differing.extend(other.map(|(block, _)| block));
            }
            block = end;
        }
        Ok(differing)
    }

    /// Flushes the storage, and remembers what is durable.
    pub(super) fn flush(&self) -> Result<(), IoError> {
        let flushed = self.store.flush(|| self.storage.flush());
        flushed.map_err(|error| error.of(Operation::Flush, 0))
    }

    /// Fails unless the content of consecutive blocks has these tags.
    fn compare(&self, first: u64, content: &[u8], known: &[Tag]) -> Result<(), IoError> {
        let tags = self.key.tags(first, content);
        match tags.iter().zip(known).position(|(tag, known)| tag != known) {
            None if tags.len() == known.len() => Ok(()),
            other => Err(self.altered(first + other.unwrap_or(0) as u64)),
        }
    }

    fn altered(&self, block: u64) -> IoError {
        let offset = self.place(block);
        self.alarm.raise(offset);
        IoError::Altered { offset }
    }

    /// What decrypts to zeroes at these bytes.
    fn zeroes(&self, bytes: &Range<u64>) -> Sectors<Cipher> {
        let iv = self.covered.first_iv.after_bytes(bytes.start);
        let plain = Sectors::<Plain>::zeroed(length(bytes));
        self.covered.crypt.encrypt(iv, plain)
    }
}

/// Moves the tags of a log that retires to the pages.
pub(super) fn checkpoint(store: &Store, storage: &dyn Backend) {
    if let Err(error) = store.checkpoint(|| storage.flush()) {
        let error = crate::backend::chain(&error);
        tracing::error!(target: "luksmith::state", "the tags cannot be kept up: {error}");
    }
}

/// The length of a range in bytes, which fits in memory.
pub(super) fn length(bytes: &Range<u64>) -> usize {
    usize::try_from(bytes.end.saturating_sub(bytes.start)).unwrap_or(usize::MAX)
}

/// The bytes of a block, for callers that count in memory.
pub(super) const LEN: usize = BLOCK_LEN;
