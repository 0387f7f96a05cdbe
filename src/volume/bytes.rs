//! Reading and writing bytes at any offset. A partial unit of a write is read before it is written.
//!
//! The caller holds the range lock over all units that a request touches, so no other request comes
//! between that read and that write.

use super::Volume;
use super::align::{Piece, Source};
use crate::backend::IoError;
use crate::sectors::{Plain, Sectors};

impl Volume {
    /// Fills `into` with the bytes from `offset` on.
    pub(super) fn read_bytes(&self, offset: u64, mut into: &mut [u8]) -> Result<(), IoError> {
        for piece in Piece::cut(offset, into.len() as u64, self.unit, self.piece()) {
            let sectors = self.load(piece.start, piece.len)?;
            let (now, later) = into.split_at_mut(piece.inner.len());
            now.copy_from_slice(&sectors.as_slice()[piece.inner]);
            into = later;
        }
        Ok(())
    }

    /// Writes all of `source` at `offset`.
    pub(super) fn write_bytes(&self, offset: u64, mut source: Source<'_>) -> Result<(), IoError> {
        for piece in Piece::cut(offset, source.len(), self.unit, self.piece()) {
            let mut sectors = Sectors::<Plain>::with_len(piece.len);
            for partial in piece.partial_units(self.unit) {
                let old = self.load(piece.start + partial.start as u64, partial.len())?;
                sectors.as_mut_slice()[partial].copy_from_slice(old.as_slice());
            }
            source.take(&mut sectors.as_mut_slice()[piece.inner]);
            self.store(piece.start, sectors)?;
        }
        Ok(())
    }
}
