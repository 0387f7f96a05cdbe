//! Changes of metadata as data: a [`WritePlan`] is a list of writes and flushes, and
//! [`WritePlan::execute`] is the only code that writes headers and key material.
//!
//! A plan first writes new key material, then headers, and wipes old material last, with flushes
//! between these steps. So a crash after any write leaves a volume that opens. A plan that has to
//! overwrite bytes in use, since there is no free room for another copy, says so with
//! [`WritePlan::overwrites_in_place`]. The old bytes are then kept in an [`UndoStore`] until the
//! last write is durable.

use std::ops::Range;

use super::overlay::{Overlay, lay_over};
use super::undo::{UndoRecord, UndoStore};
use super::{CommitError, UndoError};
use crate::backend::{Backend, IoError};
use crate::door;

/// A change of metadata that has not yet reached the storage.
#[derive(Default)]
pub struct WritePlan {
    steps: Vec<Step>,
    in_place: bool,
}

/// One step of a [`WritePlan`].
pub enum Step {
    /// Write these bytes at this offset. They are public: headers, encrypted key material, or
    /// random bytes.
    Write {
        /// The offset on the storage of the header, in bytes.
        offset: u64,
        /// The bytes to write.
        bytes: Vec<u8>,
    },
    /// Make everything durable that was written so far, before the next step.
    Flush,
}

impl WritePlan {
    /// The steps in the order in which they are executed.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether the plan overwrites bytes that are in use, so that it needs an undo record.
    #[must_use]
    pub fn overwrites_in_place(&self) -> bool {
        self.in_place
    }

    pub(super) fn write(&mut self, offset: u64, bytes: Vec<u8>) {
        self.steps.push(Step::Write { offset, bytes });
    }

    pub(super) fn flush(&mut self) {
        self.steps.push(Step::Flush);
    }

    /// Marks the plan as one that needs an undo record.
    pub(super) fn in_place(&mut self) {
        self.in_place = true;
    }

    /// Overwrites `range` with random bytes, and makes that durable.
    pub(super) fn wipe(&mut self, range: Range<u64>) -> Result<(), crate::secret::SecretError> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        let mut noise = vec![0; length];
        crate::secret::random(&mut noise)?;
        self.write(range.start, noise);
        self.flush();
        Ok(())
    }

    /// The end of the last byte that is written.
    pub(super) fn end(&self) -> u64 {
        let ends = self
            .writes()
            .map(|(offset, bytes)| offset + bytes.len() as u64);
        ends.max().unwrap_or(0)
    }

    /// Whether the plan writes to a byte of this part of the storage.
    pub(super) fn touches(&self, part: &Range<u64>) -> bool {
        self.writes()
            .any(|(at, bytes)| at < part.end && part.start < at + bytes.len() as u64)
    }

    /// The storage as it will be after the plan. It cannot be written.
    pub(super) fn preview<'a>(&'a self, storage: &'a dyn Backend) -> Overlay<'a> {
        Overlay::new(storage, self.writes())
    }

    fn writes(&self) -> impl Iterator<Item = (u64, &[u8])> + Clone {
        self.steps.iter().filter_map(|step| match step {
            Step::Write { offset, bytes } => Some((*offset, bytes.as_slice())),
            Step::Flush => None,
        })
    }

    /// Executes the plan on the storage of the header.
    ///
    /// # Errors
    /// Returns [`CommitError::NeedsUndo`] if the plan overwrites in place and there is no undo
    /// store, and [`CommitError::NoRoom`] if the storage has no space for the plan. Nothing has
    /// been written then. Returns [`CommitError::RolledBack`] if a write failed, and all bytes are
    /// as before again. Returns [`CommitError::NotKept`] if everything was written and flushed, but
    /// the storage does not contain it. After any other error, a prefix of the plan has been
    /// written, and the volume still opens. If there is an undo record, `header repair` has to end
    /// the change first.
    pub fn execute(
        &self,
        storage: &dyn Backend,
        undo: Option<&dyn UndoStore>,
    ) -> Result<(), CommitError> {
        let undo = match (self.in_place, undo) {
            (true, None) => return Err(CommitError::NeedsUndo),
            (true, undo) => undo,
            (false, _) => None,
        };
        let Some(undo) = undo else {
            self.reserve_all(storage)?;
            self.run(storage)?;
            return self.check_kept(storage);
        };
        let record = UndoRecord::take(storage, self.writes())?;
        reserve(storage, &record)?;
        undo.save(&record.to_bytes()).map_err(UndoError::from)?;
        if let Err(error) = self.run(storage) {
            // If this fails too, the record stays, and `header repair` tries again.
            return Err(match record.write_back(storage) {
                Ok(()) => {
                    undo.clear().map_err(UndoError::from)?;
                    CommitError::RolledBack(error)
                }
                Err(_) => error.into(),
            });
        }
        self.check_kept(storage)?;
        undo.clear().map_err(UndoError::from)?;
        Ok(())
    }

    /// Checks that the storage contains what was written to it. A remote storage may have been
    /// replaced by another one while the plan was executed.
    fn check_kept(&self, storage: &dyn Backend) -> Result<(), CommitError> {
        for (number, (offset, bytes)) in self.writes().enumerate() {
            let mut expected = bytes.to_vec();
            for (later, over) in self.writes().skip(number + 1) {
                lay_over(&mut expected, offset, over, later);
            }
            if door::read(storage, offset, expected.len())? != expected {
                return Err(CommitError::NotKept { offset });
            }
        }
        Ok(())
    }

    /// Reserves the space of all writes where the storage can do so. A write into a hole of a
    /// sparse file could fail in the middle of the change.
    fn reserve_all(&self, storage: &dyn Backend) -> Result<(), CommitError> {
        for (offset, bytes) in self.writes() {
            match reserve_blocks(storage, offset..offset + bytes.len() as u64) {
                Ok(()) | Err(IoError::Unsupported(_)) => {}
                Err(error) => return Err(CommitError::NoRoom(error)),
            }
        }
        Ok(())
    }

    fn run(&self, storage: &dyn Backend) -> Result<(), IoError> {
        for step in &self.steps {
            match step {
                Step::Write { offset, bytes } => door::write(storage, *offset, bytes)?,
                Step::Flush => storage.flush()?,
            }
        }
        Ok(())
    }
}

/// Makes sure that the storage has space for the ranges of the record. A write into a hole of a
/// sparse file could fail in the middle of the change, and a rollback too.
fn reserve(storage: &dyn Backend, record: &UndoRecord) -> Result<(), CommitError> {
    for range in record.places() {
        match reserve_blocks(storage, range) {
            Ok(()) => {}
            Err(IoError::Unsupported(_)) => {
                return record.occupy(storage).map_err(CommitError::NoRoom);
            }
            Err(error) => return Err(CommitError::NoRoom(error)),
        }
    }
    Ok(())
}

/// Reserves all blocks that contain a part of the range. A storage with blocks, such as a file that
/// is opened for direct I/O, reserves only whole ones.
fn reserve_blocks(storage: &dyn Backend, range: Range<u64>) -> Result<(), IoError> {
    let geometry = storage.geometry();
    let block = u64::from(geometry.block_size.max(1));
    let start = range.start / block * block;
    let end = match range.end.next_multiple_of(block) {
        end if end <= geometry.size => end,
        _ => range.end,
    };
    storage.reserve(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::MemoryBackend;

    fn plan(writes: &[(u64, &[u8])]) -> WritePlan {
        let mut plan = WritePlan::default();
        for (offset, bytes) in writes {
            plan.write(*offset, bytes.to_vec());
            plan.flush();
        }
        plan
    }

    #[test]
    fn bytes_that_a_later_step_overwrites_are_compared_with_that_step() {
        let storage = MemoryBackend::new(8192);
        let plan = plan(&[
            (0, &[1; 4096]),
            (1000, &[2; 4096]),
            (0, &[3; 512]),
            (1200, &[4; 8]),
        ]);
        plan.execute(&storage, None).unwrap();
    }

    #[test]
    fn a_storage_that_does_not_keep_writes_is_detected() {
        let storage = MemoryBackend::new(8192);
        let first = plan(&[(512, &[1; 512]), (4096, &[2; 512])]);
        first.execute(&storage, None).unwrap();
        door::write(&storage, 4600, &[9]).unwrap();
        let kept = first.check_kept(&storage);
        assert!(matches!(kept, Err(CommitError::NotKept { offset: 4096 })));
    }
}
