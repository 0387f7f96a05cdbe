//! Metadata changes as data: a [`WritePlan`] is a list of writes and flushes, and [`WritePlan::execute`] is the
//! only code of the project that writes metadata.
//!
//! A plan keeps the rule of the house: new key material first, then headers, flushes between, old material wiped
//! last, so that a cut after any write leaves a volume that opens. A plan that has to overwrite what is in use
//! (there is no free room for another copy) says so with [`WritePlan::overwrites_in_place`]; then the bytes about
//! to be lost are kept in an [`UndoStore`] until the last write is durable.

use std::ops::Range;

use super::undo::{UndoRecord, UndoStore};
use super::{CommitError, UndoError};
use crate::backend::{Backend, IoError};
use crate::door;

/// A change of metadata, ready to be carried out: nothing of it has reached the storage yet.
#[derive(Default)]
pub struct WritePlan {
    steps: Vec<Step>,
    in_place: bool,
}

/// One step of a [`WritePlan`].
pub enum Step {
    /// Write these bytes at this offset. They are public: headers, encrypted key material, or random noise.
    Write {
        /// Position on the header's storage, in bytes.
        offset: u64,
        /// What is written there.
        bytes: Vec<u8>,
    },
    /// Everything written so far is durable before the next step starts.
    Flush,
}

impl WritePlan {
    /// The steps in the order in which they are carried out.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether a cut in the middle needs the undo record: the plan overwrites bytes that are in use.
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

    fn writes(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.steps.iter().filter_map(|step| match step {
            Step::Write { offset, bytes } => Some((*offset, bytes.as_slice())),
            Step::Flush => None,
        })
    }

    /// Carries the plan out on the storage that holds the header.
    ///
    /// # Errors
    /// [`CommitError::NeedsUndo`] when the plan overwrites in place and there is no undo store; nothing has been
    /// written then. Any other error comes from the storage: what was written until then is a prefix of the plan,
    /// after which the volume still opens (by `header repair` first, where there is an undo record).
    pub fn execute(
        &self,
        storage: &dyn Backend,
        undo: Option<&dyn UndoStore>,
    ) -> Result<(), CommitError> {
        if self.in_place {
            let undo = undo.ok_or(CommitError::NeedsUndo)?;
            let record = UndoRecord::take(storage, self.writes())?;
            undo.save(&record.to_bytes()).map_err(UndoError::from)?;
            self.run(storage)?;
            undo.clear().map_err(UndoError::from)?;
        } else {
            self.run(storage)?;
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
