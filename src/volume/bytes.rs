//! Reading and writing bytes at any offset. A partial unit of a write is read before it is written.
//!
//! The caller holds the range lock over all units that a request touches, so no other request comes
//! between that read and that write.

use super::Volume;
use super::align::{Piece, Source};
use super::windows::lost;
use crate::backend::IoError;
use crate::crypt::Windows;
use crate::sectors::{Plain, Sectors};

impl Volume {
    /// Fills `into` with the bytes from `offset` on.
    pub(super) fn read_bytes(&self, offset: u64, mut into: Windows<'_>) -> Result<(), IoError> {
        for piece in Piece::cut(offset, into.len() as u64, self.unit, self.piece()) {
            let part = into.take(piece.inner.len());
            if piece.is_whole() {
                self.load_to(piece.start, part)?;
            } else {
                let sectors = self.load(piece.start, piece.len)?;
                part.copy_from(&sectors.as_slice()[piece.inner]);
            }
        }
        Ok(())
    }

    /// Writes all of `source` at `offset`.
    pub(super) fn write_bytes(&self, offset: u64, mut source: Source<'_>) -> Result<(), IoError> {
        for piece in Piece::cut(offset, source.len(), self.unit, self.piece()) {
            if let Source::Windows(from) = &mut source
                && piece.is_whole()
            {
                let mut rest = *from;
                if self.store_from(piece.start, rest.take(piece.len))? {
                    *from = rest;
                    continue;
                }
            }
            let mut sectors = Sectors::<Plain>::with_len(piece.len);
            for partial in piece.partial_units(self.unit) {
                let old = self.load(piece.start + partial.start as u64, partial.len())?;
                sectors.as_mut_slice()[partial].copy_from_slice(old.as_slice());
            }
            if !source.take(&mut sectors.as_mut_slice()[piece.inner]) {
                return Err(lost(piece.start));
            }
            self.store(piece.start, sectors)?;
        }
        Ok(())
    }
}
