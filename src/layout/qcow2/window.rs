//! The storage of the LUKS header: a part of the image as a backend of its own.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::{Backend, Geometry, IoError, Operation};
use crate::sectors::{Cipher, Sectors};

/// A part of a storage that starts at `start`, with a fixed size.
pub(super) struct Window {
    pub(super) storage: Arc<dyn Backend>,
    pub(super) start: u64,
    pub(super) len: u64,
}

impl Backend for Window {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.len,
            ..self.storage.geometry()
        }
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        let len = into.len() as u64;
        self.geometry().check(Operation::Read, offset, len)?;
        self.storage.read_at(self.start + offset, into)
    }

    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        let len = from.len() as u64;
        self.geometry()
            .check_change(Operation::Write, offset, len)?;
        self.storage.write_at(self.start + offset, from)
    }

    fn flush(&self) -> Result<(), IoError> {
        self.storage.flush()
    }

    fn can_flush(&self) -> bool {
        self.storage.can_flush()
    }

    fn discard(&self, _: Range<u64>) -> Result<(), IoError> {
        Err(IoError::Unsupported(Operation::Discard))
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        let operation = Operation::WriteZeroes;
        self.geometry().check_change(operation, range.start, len)?;
        self.storage
            .write_zeroes(self.start + range.start..self.start + range.end)
    }

    fn reserve(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        let operation = Operation::Reserve;
        self.geometry().check_change(operation, range.start, len)?;
        self.storage
            .reserve(self.start + range.start..self.start + range.end)
    }

    fn resize(&self, _: u64) -> Result<(), IoError> {
        Err(IoError::Unsupported(Operation::Resize))
    }
}
