//! A volume in an object store as storage: a log of objects, each of which is created once.
//!
//! [`ObjectsBackend`] works on any [`Store`] that creates an object only if there is none of its
//! name, and whose names are below one prefix. The layout is that of
//! [`luksmith_formats::objects`].
//!
//! - **One writer.** A writer claims the next epoch, and then fences the one before: it creates an
//!   object where the log would go on. So the writer of an earlier epoch, which may only have been
//!   stopped, cannot add to the log any more: every later call of it fails with
//!   [`IoError::LockLost`].
//! - **A flush is a prefix.** The log has the changes in their order, and counts up to the first
//!   number that is missing. A flush returns when the store has everything up to it. After a crash
//!   every flushed write is there, and of the others a part from the first one on.
//! - **No list decides.** What the newest state is follows from names, and from what the store
//!   refuses to create twice. A store may return old lists, and say for a while that an object is
//!   not there.
//! - **Nothing that is needed is deleted.** See `checkpoint.rs`.
//!
//! This module never sees plaintext.

mod buffer;
mod cache;
mod checkpoint;
mod client;
mod collect;
mod error;
mod inspect;
mod journal;
mod journaled;
mod kept;
mod local;
mod log;
mod map;
mod open;
mod options;
mod recover;
mod requests;
#[cfg(feature = "s3")]
pub mod s3;
mod snapshots;
mod state;
mod store;

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use luksmith_formats::objects::BLOCK;
use luksmith_formats::objects::volume::{LARGEST, Volume};

pub use error::{CacheError, JournalError, ObjectsError};
pub use inspect::{Status, Swept, Verified, Writer};
pub use open::OwnClaim;
pub use options::{NotClosed, ObjectsOptions};
pub use requests::Requests;
pub use store::{Creation, Store, StoreError};

use crate::backend::{Allocation, Backend, Extents, Geometry, IoError, Operation};
use crate::sectors::{Cipher, Sectors};
use buffer::{BLOCK_BYTES, BLOCK_LEN};
use map::by_leaf;
use open::Opened;

/// How many leaves of the map one search for holes reads at most.
const LEAVES_LOOKED_AT: usize = 64;

/// A volume in an object store, or a snapshot of one.
pub struct ObjectsBackend {
    opened: Opened,
    read_only: bool,
    /// Shared by changes of whole blocks. A change of a part of a block reads the block first, and
    /// has this for itself.
    partial: RwLock<()>,
}

impl ObjectsBackend {
    /// Makes a volume of zeroes. Nothing is stored for them.
    ///
    /// # Errors
    /// [`ObjectsError::Exists`], [`ObjectsError::Overwrites`], and what the store answers.
    pub fn create(
        store: Arc<dyn Store>,
        volume: &Volume,
        options: &ObjectsOptions,
    ) -> Result<(), ObjectsError> {
        open::create(store, volume, options)
    }

    /// What never changes in the volume of a store. `None` if there is no volume.
    ///
    /// # Errors
    /// [`ObjectsError::Occupied`] if there are objects, but no volume; and what the store answers.
    pub fn find(
        store: Arc<dyn Store>,
        options: &ObjectsOptions,
    ) -> Result<Option<Volume>, ObjectsError> {
        open::find(store, options)
    }

    /// Deletes a volume that was made just now, and empties its journal. `own` is the claim of the
    /// writer that gives it up, if one has opened it.
    ///
    /// # Errors
    /// [`ObjectsError::Exists`] if the volume has another UUID, [`ObjectsError::Busy`] if another
    /// writer has opened it, and what the store answers. Another call goes on.
    pub fn remove(
        store: Arc<dyn Store>,
        uuid: [u8; 16],
        own: Option<OwnClaim>,
        options: &ObjectsOptions,
    ) -> Result<(), ObjectsError> {
        open::remove(store, uuid, own, options)
    }

    /// The claim of this writer. `None` of a reader.
    #[must_use]
    pub fn claim(&self) -> Option<OwnClaim> {
        let log = &self.opened.log;
        (log.epoch > 0).then_some(OwnClaim {
            epoch: log.epoch,
            nonce: log.nonce,
        })
    }

    /// Gives up everything that was not flushed. Every later call fails.
    pub fn abandon(&self) {
        self.opened.log.fail(&ObjectsError::Abandoned);
    }

    /// Opens a volume, or a snapshot of it, which is only read. A reader sees the volume as it is
    /// now; if a writer deletes what it needs, its calls fail.
    ///
    /// # Errors
    /// [`ObjectsError`] says why not.
    pub fn open(
        store: Arc<dyn Store>,
        snapshot: Option<&str>,
        options: ObjectsOptions,
    ) -> Result<Self, ObjectsError> {
        let read_only = !options.write;
        Ok(Self {
            opened: Opened::open(store, snapshot, options)?,
            read_only,
            partial: RwLock::new(()),
        })
    }

    /// Flushes, and ends the epoch of this writer. Dropping the volume does the same, but cannot
    /// say whether it succeeded.
    ///
    /// # Errors
    /// What the store answers. Everything that was not flushed may be lost then.
    pub fn close(mut self) -> Result<(), ObjectsError> {
        self.opened.close()
    }

    /// What the volume consists of.
    #[must_use]
    pub fn status(&self) -> Status {
        self.opened.log.status()
    }

    /// The writer that has not closed the volume, if it was open when this reader opened it.
    ///
    /// # Errors
    /// What the store answers.
    pub fn writer(&self) -> Result<Option<Writer>, ObjectsError> {
        self.opened.log.writer()
    }

    /// How many requests were sent until now.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.opened.log.client.sent.requests()
    }

    /// Reads every object that the volume or a snapshot needs, and compares all checksums, the
    /// chain of the headers, and the map.
    ///
    /// # Errors
    /// The first object that is damaged or missing, and what the store answers.
    pub fn verify(&self) -> Result<Verified, ObjectsError> {
        self.opened.log.verify()
    }

    /// Makes a checkpoint: the next opening reads no log before it.
    ///
    /// # Errors
    /// [`ObjectsError::ReadOnly`], and what the store answers.
    pub fn checkpoint(&self) -> Result<(), ObjectsError> {
        self.log_to_write()?.checkpoint()
    }

    /// Moves live blocks out of objects that are mostly garbage, and deletes these.
    ///
    /// # Errors
    /// As for [`checkpoint`](Self::checkpoint).
    pub fn collect(&self) -> Result<(), ObjectsError> {
        self.log_to_write()?.collect()
    }

    /// Deletes objects to which nothing refers, which writers leave that are killed or fenced.
    ///
    /// # Errors
    /// As for [`checkpoint`](Self::checkpoint).
    pub fn sweep(&self) -> Result<Swept, ObjectsError> {
        self.log_to_write()?.sweep()
    }

    /// Makes a snapshot of the volume as it is now.
    ///
    /// # Errors
    /// [`ObjectsError::SnapshotExists`], and as for [`checkpoint`](Self::checkpoint).
    pub fn make_snapshot(&self, name: &str) -> Result<(), ObjectsError> {
        self.log_to_write()?.make_snapshot(name)
    }

    /// Deletes a snapshot, and what only it needs.
    ///
    /// # Errors
    /// [`ObjectsError::NoSnapshot`], and as for [`checkpoint`](Self::checkpoint).
    pub fn delete_snapshot(&self, name: &str) -> Result<(), ObjectsError> {
        self.log_to_write()?.delete_snapshot(name)
    }

    /// Gives the volume the contents and the size of a snapshot. Its present contents are lost,
    /// unless another snapshot has them.
    ///
    /// # Errors
    /// [`ObjectsError::NoSnapshot`], and as for [`checkpoint`](Self::checkpoint).
    pub fn roll_back(&self, name: &str) -> Result<(), ObjectsError> {
        let _alone = self.partial.write().unwrap_or_else(PoisonError::into_inner);
        self.log_to_write()?.roll_back(name)
    }

    fn log_to_write(&self) -> Result<&log::Log, ObjectsError> {
        match self.read_only {
            true => Err(ObjectsError::ReadOnly),
            false => Ok(&self.opened.log),
        }
    }

    /// Reads bytes that need not be whole blocks.
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), ObjectsError> {
        let (blocks, skip) = around(offset, into.len() as u64);
        if blocks.end - blocks.start == into.len() as u64 / BLOCK && skip == 0 {
            return self.opened.log.read(blocks.start, into);
        }
        let mut whole = vec![0; length(&blocks)];
        self.opened.log.read(blocks.start, &mut whole)?;
        into.copy_from_slice(&whole[skip..skip + into.len()]);
        Ok(())
    }

    /// Changes bytes that need not be whole blocks.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), ObjectsError> {
        let log = &self.opened.log;
        let (blocks, skip) = around(offset, bytes.len() as u64);
        if blocks.end - blocks.start == bytes.len() as u64 / BLOCK && skip == 0 {
            let _shared = self.partial.read().unwrap_or_else(PoisonError::into_inner);
            return log.write(blocks.start, bytes);
        }
        let _alone = self.partial.write().unwrap_or_else(PoisonError::into_inner);
        let mut whole = vec![0; length(&blocks)];
        let last = whole.len() - BLOCK_LEN;
        log.read(blocks.start, &mut whole[..BLOCK_LEN])?;
        if last > 0 {
            log.read(blocks.end - 1, &mut whole[last..])?;
        }
        whole[skip..skip + bytes.len()].copy_from_slice(bytes);
        log.write(blocks.start, &whole)
    }

    fn clear(&self, range: Range<u64>) -> Result<(), ObjectsError> {
        let first = range.start.next_multiple_of(BLOCK).min(range.end);
        // The rest of the last block is not in the volume.
        let end = match range.end == self.geometry().size {
            true => range.end.next_multiple_of(BLOCK),
            false => range.end / BLOCK * BLOCK,
        };
        if first >= end {
            return self.write(range.start, &vec![0; size_of_range(&range)]);
        }
        for part in [range.start..first, end.min(range.end)..range.end] {
            if !part.is_empty() {
                self.write(part.start, &vec![0; size_of_range(&part)])?;
            }
        }
        let _shared = self.partial.read().unwrap_or_else(PoisonError::into_inner);
        self.opened.log.clear(first / BLOCK..end / BLOCK)
    }

    fn change_size(&self, size: u64) -> Result<(), ObjectsError> {
        let old = self.geometry().size;
        let rest = size % BLOCK;
        if size < old && rest != 0 {
            let end = (size - rest + BLOCK).min(old);
            self.write(size, &vec![0; size_of_range(&(size..end))])?;
        }
        let _alone = self.partial.write().unwrap_or_else(PoisonError::into_inner);
        self.opened.log.resize(size)
    }

    fn find_extents(&self, range: &Range<u64>) -> Result<Extents, ObjectsError> {
        let mut extents = Extents::new();
        let mut looked_at = 0;
        let (blocks, _) = around(range.start, range.end - range.start);
        let mut at = range.start;
        for some in by_leaf(blocks) {
            let mut left = some;
            while left.count > 0 {
                let log = &self.opened.log;
                let (place, count) = if log.lock().map.is_empty(left.leaf) {
                    (None, left.count)
                } else {
                    log.with_leaf(left.leaf)?.map.find(left)
                };
                left.start += count;
                left.count -= count;
                let leaf =
                    u64::from(left.leaf) * u64::from(luksmith_formats::objects::leaf::BLOCKS);
                let end = ((leaf + u64::from(left.start)) * BLOCK).min(range.end);
                let kind = match place {
                    Some(_) => Allocation::Data,
                    None => Allocation::Hole,
                };
                crate::backend::push_extent(&mut extents, end - at, kind);
                at = end;
            }
            looked_at += 1;
            if looked_at == LEAVES_LOOKED_AT {
                break;
            }
        }
        Ok(extents)
    }
}

impl Backend for ObjectsBackend {
    fn geometry(&self) -> Geometry {
        let size = self.opened.log.lock().size;
        Geometry::new(size).with_read_only(self.read_only)
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        let operation = Operation::Read;
        self.geometry()
            .check(operation, offset, into.len() as u64)?;
        let read = self.read(offset, into.as_mut_slice());
        read.map_err(|error| error.of_operation(operation, offset))
    }

    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        let (operation, len) = (Operation::Write, from.len() as u64);
        self.geometry().check_change(operation, offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let written = self.write(offset, from.as_slice());
        written.map_err(|error| error.of_operation(operation, offset))
    }

    fn flush(&self) -> Result<(), IoError> {
        if self.read_only {
            return Ok(());
        }
        let flushed = self.opened.log.flush();
        flushed.map_err(|error| error.of_operation(Operation::Flush, 0))
    }

    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.change(Operation::Discard, range)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.change(Operation::WriteZeroes, range)
    }

    fn atomic_unit(&self) -> Option<u32> {
        Some(BLOCK_BYTES)
    }

    fn resize(&self, size: u64) -> Result<(), IoError> {
        let operation = Operation::Resize;
        self.geometry().check_change(operation, 0, 0)?;
        if size > LARGEST {
            return Err(IoError::TooLarge {
                operation,
                offset: size,
            });
        }
        let changed = self.change_size(size);
        changed.map_err(|error| error.of_operation(operation, size))
    }

    fn extents(&self, range: Range<u64>) -> Result<Extents, IoError> {
        crate::backend::check_extents(self.geometry(), &range)?;
        let found = self.find_extents(&range);
        found.map_err(|error| error.of_operation(Operation::Extents, range.start))
    }
}

impl ObjectsBackend {
    fn change(&self, operation: Operation, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        let offset = range.start;
        self.geometry().check_change(operation, offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let cleared = self.clear(range);
        cleared.map_err(|error| error.of_operation(operation, offset))
    }
}

/// The blocks around a range, and where in them it begins.
fn around(offset: u64, len: u64) -> (Range<u64>, usize) {
    let blocks = offset / BLOCK..(offset + len).div_ceil(BLOCK);
    (blocks, (offset % BLOCK) as usize)
}

fn length(blocks: &Range<u64>) -> usize {
    size_of_range(&(blocks.start * BLOCK..blocks.end * BLOCK))
}

fn size_of_range(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}
