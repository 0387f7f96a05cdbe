//! A storage whose data is compared with the tags of this host.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use luksmith_formats::trust::tags::BLOCK;

use super::blocks::{Blocks, LEN, MOST, Unread, checkpoint, length};
use super::error::TagsError;
use super::recover::Recovery;
use crate::backend::{Backend, Geometry, IoError, Operation};
use crate::sectors::{Cipher, Sectors};
use crate::volume::RangeLocks;

/// A storage of which the data of a volume has tags on this host.
///
/// A read returns what was written last, or fails with [`IoError::Altered`]. A block that was never
/// written, or was discarded, is not read from the storage: it decrypts to zeroes. What is before
/// the data of the volume has no tags, and is passed on. The storage ends where the data does.
pub struct Tagged {
    blocks: Arc<Blocks>,
    locks: RangeLocks,
    recovery: Recovery,
    background: bool,
    /// Whether a thread moves tags to the pages.
    is_working: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A part of the storage that has tags, from the start of the data on, with its blocks.
struct Part {
    bytes: Range<u64>,
    blocks: Range<u64>,
}

/// Which part of the storage a request is for.
enum Asked {
    /// One without tags.
    Before,
    Data(Part),
}

impl Tagged {
    pub(super) fn new(blocks: Blocks, recovery: Recovery, background: bool) -> Self {
        Self {
            blocks: Arc::new(blocks),
            locks: RangeLocks::default(),
            recovery,
            background,
            is_working: Arc::default(),
            thread: Mutex::default(),
        }
    }

    /// What was found out about blocks that were written when the store was last used.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// How many blocks were read that were not as they were written.
    #[must_use]
    pub fn altered(&self) -> u64 {
        self.blocks.alarm.count()
    }

    /// The size of the data in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.blocks.store.size()
    }

    /// Reads a part of the data, from the start of the data on, and returns the offsets on the
    /// storage of all blocks of 4096 bytes that are not as they were written.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn verify(&self, bytes: Range<u64>) -> Result<Vec<u64>, IoError> {
        let (mut at, end) = (bytes.start / BLOCK, bytes.end.div_ceil(BLOCK));
        let mut differing = Vec::new();
        while at < end.min(self.blocks.count()) {
            let until = (at + MOST / 4).min(end).min(self.blocks.count());
            let found = {
                let _lock = self.locks.exclude(at..until);
                match self.blocks.differing(at..until) {
                    Ok(found) => found,
                    Err(Unread::Failed(error)) => return Err(error),
                    Err(Unread::Doubtful) => {
                        self.blocks.settle(at..until)?;
                        continue;
                    }
                }
            };
            differing.extend(found.into_iter().map(|block| self.blocks.place(block)));
            at = until;
        }
        Ok(differing)
    }

    /// Moves the tags of the logs to their file.
    ///
    /// # Errors
    /// What the storage and the files report.
    pub fn checkpoint(&self) -> Result<(), TagsError> {
        let (store, storage) = (&self.blocks.store, &self.blocks.storage);
        store.checkpoint(|| storage.flush())?;
        store.retire()?;
        store.checkpoint(|| storage.flush())
    }

    fn asked(&self, operation: Operation, offset: u64, len: u64) -> Result<Asked, IoError> {
        self.geometry().check(operation, offset, len)?;
        let start = self.blocks.covered.offset;
        if offset + len <= start && offset < start {
            return Ok(Asked::Before);
        }
        let Some(from) = offset.checked_sub(start) else {
            return Err(IoError::Unaligned {
                operation,
                offset,
                len,
                unit: self.geometry().block_size,
            });
        };
        let bytes = from..from + len;
        let blocks = bytes.start / BLOCK..bytes.end.div_ceil(BLOCK);
        Ok(Asked::Data(Part { bytes, blocks }))
    }

    fn change(&self, operation: Operation, offset: u64, len: u64) -> Result<Asked, IoError> {
        self.geometry().check_change(operation, offset, len)?;
        self.asked(operation, offset, len)
    }

    fn read(&self, blocks: Range<u64>, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        {
            let _lock = self.locks.share(blocks.clone());
            match self.blocks.read(blocks.clone(), into) {
                Ok(()) => return Ok(()),
                Err(Unread::Failed(error)) => return Err(error),
                Err(Unread::Doubtful) => {}
            }
        }
        let _lock = self.locks.exclude(blocks.clone());
        self.blocks.read_locked(blocks, into)
    }

    /// Writes to blocks that are locked exclusively. What is not written of them is read, and
    /// compared, first.
    fn write(&self, part: &Part, from: &[u8]) -> Result<(), IoError> {
        let mut rest = from;
        let mut at = part.bytes.start;
        while !rest.is_empty() {
            let first = at / BLOCK;
            let last = (first + MOST).min(part.blocks.end);
            let whole = self.blocks.bytes(&(first..last));
            let until = whole.end.min(part.bytes.end);
            let (now, later) = rest.split_at(length(&(at..until)));
            let mut content = Sectors::<Cipher>::with_len(length(&whole));
            if at > whole.start {
                self.old(first, &mut content, 0)?;
            }
            let in_last = last > first + 1 || at == whole.start;
            if until < whole.end && in_last {
                self.old(last - 1, &mut content, length(&whole))?;
            }
            let place = length(&(whole.start..at));
            content.as_mut_slice()[place..place + now.len()].copy_from_slice(now);
            self.blocks.write(first, &content)?;
            (rest, at) = (later, until);
        }
        Ok(())
    }

    /// Reads a block, the first or the last one of the content, to its place there.
    fn old(&self, block: u64, content: &mut Sectors<Cipher>, end: usize) -> Result<(), IoError> {
        let len = length(&self.blocks.bytes(&(block..block + 1)));
        let mut old = Sectors::<Cipher>::with_len(len);
        self.blocks.read_locked(block..block + 1, &mut old)?;
        let place = end.saturating_sub(len);
        content.as_mut_slice()[place..place + len].copy_from_slice(old.as_slice());
        Ok(())
    }

    /// Makes whole blocks read as zeroes, and lets the storage free them.
    fn forget(&self, blocks: Range<u64>) -> Result<(), IoError> {
        let mut at = blocks.start;
        while at < blocks.end {
            let until = (at + MOST).min(blocks.end);
            let _lock = self.locks.exclude(at..until);
            self.blocks.forget(at..until)?;
            self.tidy();
            at = until;
        }
        Ok(())
    }

    /// Has the tags of a log that retires moved to the pages.
    fn tidy(&self) {
        let (store, storage) = (&self.blocks.store, &self.blocks.storage);
        if !store.has_retiring() {
            return;
        }
        if !self.background {
            return checkpoint(store, storage);
        }
        if self.is_working.swap(true, Ordering::AcqRel) {
            return;
        }
        let (blocks, is_working) = (self.blocks.clone(), self.is_working.clone());
        let work = move || {
            // A thread that finds this one working leaves the next log to it.
            while {
                checkpoint(&blocks.store, &blocks.storage);
                is_working.swap(false, Ordering::AcqRel);
                blocks.store.has_retiring() && !is_working.swap(true, Ordering::AcqRel)
            } {}
        };
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let started = std::thread::Builder::new().name("tags".into()).spawn(work);
        match started {
            // The one before has ended.
            Ok(started) => *thread = Some(started),
            Err(_) => {
                self.is_working.store(false, Ordering::Release);
                checkpoint(store, storage);
            }
        }
    }
}

impl Drop for Tagged {
    fn drop(&mut self) {
        let thread = self.thread.get_mut();
        if let Some(thread) = thread.unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

impl Backend for Tagged {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.blocks.covered.offset + self.blocks.store.size(),
            ..self.blocks.storage.geometry()
        }
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        let part = match self.asked(Operation::Read, offset, into.len() as u64)? {
            Asked::Before => return self.blocks.storage.read_at(offset, into),
            Asked::Data(part) => part,
        };
        if into.is_empty() {
            return Ok(());
        }
        let whole = self.blocks.bytes(&part.blocks);
        if whole == part.bytes {
            return self.read(part.blocks, into);
        }
        let mut content = Sectors::<Cipher>::with_len(length(&whole));
        self.read(part.blocks, &mut content)?;
        let from = length(&(whole.start..part.bytes.start));
        let asked = &content.as_slice()[from..from + into.len()];
        into.as_mut_slice().copy_from_slice(asked);
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        let part = match self.change(Operation::Write, offset, from.len() as u64)? {
            Asked::Before => return self.blocks.storage.write_at(offset, from),
            Asked::Data(part) => part,
        };
        let written = {
            let _lock = self.locks.exclude(part.blocks.clone());
            let is_whole = self.blocks.bytes(&part.blocks) == part.bytes;
            let count = part.blocks.end - part.blocks.start;
            match is_whole && (1..=MOST).contains(&count) {
                true => self.blocks.write(part.blocks.start, from),
                false => self.write(&part, from.as_slice()),
            }
        };
        self.tidy();
        written
    }

    fn flush(&self) -> Result<(), IoError> {
        if self.geometry().read_only {
            return self.blocks.storage.flush();
        }
        let flushed = self.blocks.flush();
        self.tidy();
        flushed
    }

    fn can_flush(&self) -> bool {
        self.blocks.storage.can_flush()
    }

    fn is_remote(&self) -> bool {
        self.blocks.storage.is_remote()
    }

    /// The whole blocks in the range read as zeroes of the volume afterwards, also if the storage
    /// cannot free their space.
    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        let part = match self.change(Operation::Discard, range.start, len)? {
            Asked::Before => return self.blocks.storage.discard(range),
            Asked::Data(part) => part,
        };
        let end = match part.bytes.end == self.size() {
            true => part.blocks.end,
            false => part.bytes.end / BLOCK,
        };
        self.forget(part.bytes.start.div_ceil(BLOCK)..end)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        let part = match self.change(Operation::WriteZeroes, range.start, len)? {
            Asked::Before => return self.blocks.storage.write_zeroes(range),
            Asked::Data(part) => part,
        };
        let zeroes = [0; 16 * LEN];
        let _lock = self.locks.exclude(part.blocks);
        let mut at = part.bytes.start;
        while at < part.bytes.end {
            let until = (at + zeroes.len() as u64).min(part.bytes.end);
            let bytes = at..until;
            let now = &zeroes[..length(&bytes)];
            let blocks = at / BLOCK..until.div_ceil(BLOCK);
            self.write(&Part { bytes, blocks }, now)?;
            self.tidy();
            at = until;
        }
        Ok(())
    }

    fn atomic_unit(&self) -> Option<u32> {
        self.blocks.storage.atomic_unit()
    }

    fn reserve(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        self.change(Operation::Reserve, range.start, len)?;
        self.blocks.storage.reserve(range)
    }

    /// The size is fixed: it is among what the host knows of the data.
    fn resize(&self, _: u64) -> Result<(), IoError> {
        match self.geometry().read_only {
            true => Err(IoError::ReadOnly(Operation::Resize)),
            false => Err(IoError::Unsupported(Operation::Resize)),
        }
    }

    fn prefetch(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        self.geometry().check(Operation::Read, range.start, len)?;
        self.blocks.storage.prefetch(range)
    }
}

impl fmt::Debug for Tagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tagged")
            .field("offset", &self.blocks.covered.offset)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}
