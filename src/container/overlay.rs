//! A storage as it would be with other bytes in some places.

use std::ops::Range;

use crate::backend::{Backend, Geometry, IoError, Operation};
use crate::sectors::{Cipher, Sectors};

/// A storage with these bytes over its own: an offset in bytes, and what is there. Later ones lie
/// over earlier ones. It cannot be written.
pub(super) struct Overlay<'a> {
    storage: &'a dyn Backend,
    over: Vec<(u64, &'a [u8])>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(
        storage: &'a dyn Backend,
        over: impl Iterator<Item = (u64, &'a [u8])>,
    ) -> Self {
        let over = over.collect();
        Self { storage, over }
    }
}

impl Backend for Overlay<'_> {
    fn geometry(&self) -> Geometry {
        self.storage.geometry().with_read_only(true)
    }
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        self.storage.read_at(offset, into)?;
        for (at, bytes) in &self.over {
            lay_over(into.as_mut_slice(), offset, bytes, *at);
        }
        Ok(())
    }
    fn write_at(&self, _: u64, _: &Sectors<Cipher>) -> Result<(), IoError> {
        Err(IoError::ReadOnly(Operation::Write))
    }
    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }
    fn discard(&self, _: Range<u64>) -> Result<(), IoError> {
        Err(IoError::ReadOnly(Operation::Discard))
    }
    fn write_zeroes(&self, _: Range<u64>) -> Result<(), IoError> {
        Err(IoError::ReadOnly(Operation::WriteZeroes))
    }
    fn resize(&self, _: u64) -> Result<(), IoError> {
        Err(IoError::ReadOnly(Operation::Resize))
    }
}

/// Copies the overlap of `over`, at offset `over_at`, to `bytes`, at offset `at`, and returns it as
/// a range of `bytes`.
pub(super) fn lay_over(bytes: &mut [u8], at: u64, over: &[u8], over_at: u64) -> Range<usize> {
    let from = at.max(over_at);
    let to = (at + bytes.len() as u64).min(over_at + over.len() as u64);
    if from >= to {
        return 0..0;
    }
    let index = |start: u64, at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
    let overlap = index(at, from)..index(at, to);
    bytes[overlap.clone()].copy_from_slice(&over[index(over_at, from)..index(over_at, to)]);
    overlap
}
