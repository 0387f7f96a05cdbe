//! A part of another storage.

use std::ops::Range;

use super::{Backend, Extents, Geometry, IoError, Operation, check_extents};
use crate::sectors::{Cipher, Sectors};

/// A part of another storage, with a fixed size. No call reads or changes anything outside of it.
#[derive(Debug)]
pub struct Section<B> {
    storage: B,
    offset: u64,
    size: u64,
    read_only: bool,
}

/// Why a part of a storage is no storage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SectionError {
    /// The part does not lie within the storage.
    #[error("bytes {} to {} are not within its {size} bytes", .part.start, .part.end)]
    Outside {
        /// The part, in bytes.
        part: Range<u64>,
        /// The size of the storage in bytes.
        size: u64,
    },
    /// The part does not begin at a block of the storage.
    #[error("byte {offset} is not at a multiple of {block_size} bytes, the unit of the storage")]
    Unaligned {
        /// Where the part begins, in bytes.
        offset: u64,
        /// The unit of reading and writing in bytes.
        block_size: u32,
    },
}

impl<B: Backend> Section<B> {
    /// The bytes `part` of a storage.
    ///
    /// # Errors
    /// [`SectionError`]: the part has to lie within the storage, and to begin at one of its blocks.
    pub fn new(storage: B, part: Range<u64>) -> Result<Self, SectionError> {
        let Geometry {
            size, block_size, ..
        } = storage.geometry();
        if part.start > part.end || part.end > size {
            return Err(SectionError::Outside { part, size });
        }
        let offset = part.start;
        if !offset.is_multiple_of(block_size.max(1).into()) {
            return Err(SectionError::Unaligned { offset, block_size });
        }
        Ok(Self::within(storage, part))
    }

    /// The same, for a part that was found to be valid.
    pub(crate) fn within(storage: B, part: Range<u64>) -> Self {
        Self {
            storage,
            offset: part.start,
            size: part.end - part.start,
            read_only: false,
        }
    }

    /// The same part, which refuses every change.
    #[must_use]
    pub fn into_read_only(self) -> Self {
        Self {
            read_only: true,
            ..self
        }
    }

    /// The bytes of the storage that are this part.
    pub fn part(&self) -> Range<u64> {
        self.offset..self.offset + self.size
    }

    /// The storage of which this is a part.
    pub fn storage(&self) -> &B {
        &self.storage
    }

    /// A range of the storage, for a range of this part that was checked.
    fn moved(&self, range: &Range<u64>) -> Range<u64> {
        let start = self.offset + range.start;
        start..start + range.end.saturating_sub(range.start)
    }

    /// Checks a change of a range, and returns it as a range of the storage.
    fn change(&self, operation: Operation, range: &Range<u64>) -> Result<Range<u64>, IoError> {
        let len = range.end.saturating_sub(range.start);
        self.geometry().check_change(operation, range.start, len)?;
        Ok(self.moved(range))
    }

    /// An error of the storage, with the offset in this part.
    fn back(&self, error: IoError) -> IoError {
        let moved = |offset: u64| offset.saturating_sub(self.offset);
        match error {
            IoError::NoSpace { operation, offset } => IoError::NoSpace {
                operation,
                offset: moved(offset),
            },
            IoError::TooLarge { operation, offset } => IoError::TooLarge {
                operation,
                offset: moved(offset),
            },
            IoError::Failed {
                operation,
                offset,
                source,
            } => IoError::Failed {
                operation,
                offset: moved(offset),
                source,
            },
            other => other,
        }
    }
}

impl<B: Backend> Backend for Section<B> {
    fn geometry(&self) -> Geometry {
        let whole = self.storage.geometry();
        Geometry {
            size: self.size,
            read_only: self.read_only || whole.read_only,
            ..whole
        }
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        let len = into.len() as u64;
        self.geometry().check(Operation::Read, offset, len)?;
        let read = self.storage.read_at(self.offset + offset, into);
        read.map_err(|error| self.back(error))
    }

    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        let len = from.len() as u64;
        self.geometry()
            .check_change(Operation::Write, offset, len)?;
        let written = self.storage.write_at(self.offset + offset, from);
        written.map_err(|error| self.back(error))
    }

    fn flush(&self) -> Result<(), IoError> {
        self.storage.flush()
    }

    fn can_flush(&self) -> bool {
        self.storage.can_flush()
    }

    fn is_remote(&self) -> bool {
        self.storage.is_remote()
    }

    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        let range = self.change(Operation::Discard, &range)?;
        let discarded = self.storage.discard(range);
        discarded.map_err(|error| self.back(error))
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        let range = self.change(Operation::WriteZeroes, &range)?;
        let written = self.storage.write_zeroes(range);
        written.map_err(|error| self.back(error))
    }

    fn reserve(&self, range: Range<u64>) -> Result<(), IoError> {
        let range = self.change(Operation::Reserve, &range)?;
        let reserved = self.storage.reserve(range);
        reserved.map_err(|error| self.back(error))
    }

    /// The blocks of the storage are those of this part only if it begins at one of them.
    fn atomic_unit(&self) -> Option<u32> {
        let unit = self.storage.atomic_unit();
        unit.filter(|unit| self.offset.is_multiple_of((*unit).max(1).into()))
    }

    fn extents(&self, range: Range<u64>) -> Result<Extents, IoError> {
        check_extents(self.geometry(), &range)?;
        let extents = self.storage.extents(self.moved(&range));
        extents.map_err(|error| self.back(error))
    }

    /// The size is fixed.
    fn resize(&self, _: u64) -> Result<(), IoError> {
        match self.geometry().read_only {
            true => Err(IoError::ReadOnly(Operation::Resize)),
            false => Err(IoError::Unsupported(Operation::Resize)),
        }
    }

    fn prefetch(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        self.geometry().check(Operation::Read, range.start, len)?;
        let read = self.storage.prefetch(self.moved(&range));
        read.map_err(|error| self.back(error))
    }
}
