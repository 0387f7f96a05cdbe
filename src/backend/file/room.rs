//! Room before the content of a file, and the reservation of space.

use std::ops::Range;
use std::sync::atomic::Ordering;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{FileBackend, size_of};
use crate::backend::room::Room;
use crate::backend::{Backend, IoError, Operation};

/// The file systems that move extents as [`Room`] says, with a journal: ext4 and XFS. Both change
/// the size first if the content moves to the end, and last if it moves back.
const MOVES: [u64; 2] = [0xef53, 0x5846_5342];

impl FileBackend {
    /// Reserves the space of the whole file, so that no later write fails for lack of space.
    ///
    /// # Errors
    /// Returns [`IoError::NoSpace`] if there is not enough space, and [`IoError::Unsupported`] if
    /// the file system cannot reserve space.
    pub fn preallocate(&self) -> Result<(), IoError> {
        self.reserve(0..self.geometry().size)
    }

    pub(super) fn fallocate(
        &self,
        operation: Operation,
        flags: FallocateFlags,
        range: Range<u64>,
    ) -> Result<(), IoError> {
        let (offset, len) = (range.start, range.end.saturating_sub(range.start));
        if len == 0 {
            return Ok(());
        }
        rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.file, flags, offset, len))
            .map_err(|error| IoError::from_os(operation, offset, error.into()))
    }

    /// Moves content, and looks at the size again, also after a failure.
    fn move_content(&self, flags: FallocateFlags, range: Range<u64>) -> Result<(), IoError> {
        if self.read_only {
            return Err(IoError::ReadOnly(Operation::Move));
        }
        let moved = self.fallocate(Operation::Move, flags, range);
        let size =
            size_of(&self.file).map_err(|error| IoError::from_os(Operation::Move, 0, error))?;
        self.size.store(size, Ordering::Release);
        moved
    }
}

impl Room for FileBackend {
    /// Asks for room after the end of the file, which no file system makes. The error says whether
    /// it makes room at all.
    fn can_insert(&self, length: u64) -> Result<(), IoError> {
        let unsupported = IoError::Unsupported(Operation::Move);
        let about = rustix::fs::fstatfs(&self.file);
        let kind = about
            .ok()
            .and_then(|about| u64::try_from(about.f_type).ok());
        if self.is_device || !kind.is_some_and(|kind| MOVES.contains(&kind)) {
            return Err(unsupported);
        }
        let after = self.geometry().size.checked_next_multiple_of(length);
        let after = after.ok_or(IoError::TooLarge {
            operation: Operation::Move,
            offset: 0,
        })?;
        let flags = FallocateFlags::INSERT_RANGE;
        match rustix::fs::fallocate(&self.file, flags, after, length) {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(error) => Err(IoError::from_os(Operation::Move, 0, error.into())),
        }
    }

    fn insert(&self, length: u64) -> Result<(), IoError> {
        self.move_content(FallocateFlags::INSERT_RANGE, 0..length)
    }

    fn remove(&self, range: Range<u64>) -> Result<(), IoError> {
        match range.end == self.geometry().size {
            true => self.resize(range.start),
            false => self.move_content(FallocateFlags::COLLAPSE_RANGE, range),
        }
    }
}
