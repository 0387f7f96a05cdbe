//! A zone of the data in memory, as old ciphertext.

use std::ops::Range;

use super::error::ReencryptError;
use super::side::{Side, convert};
use crate::backend::{Backend, IoError};
use crate::sectors::{Cipher, Sectors};

/// The bytes that are read, converted and written at once.
pub(super) const PIECE: u64 = 256 << 10;

/// The old ciphertext of a zone.
pub(super) struct Zone {
    pub(super) start: u64,
    pub(super) length: u64,
    pieces: Vec<Sectors<Cipher>>,
}

impl Zone {
    /// Reads a zone of the data, which begins at `first` of its storage.
    pub(super) fn read(
        data: &dyn Backend,
        first: u64,
        start: u64,
        length: u64,
    ) -> Result<Self, IoError> {
        let read = |piece: Range<u64>| read_at(data, first + piece.start, &piece);
        let pieces = pieces(start, length).map(read).collect::<Result<_, _>>()?;
        Ok(Self {
            start,
            length,
            pieces,
        })
    }

    /// The pieces in order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Sectors<Cipher>> {
        self.pieces.iter()
    }

    /// Writes the new ciphertext over the old one.
    pub(super) fn convert(
        self,
        data: &dyn Backend,
        old: &Side,
        new: &Side,
    ) -> Result<(), ReencryptError> {
        let mut at = self.start;
        for piece in self.pieces {
            let length = piece.len() as u64;
            data.write_at(new.place(at), &convert(old, new, at, piece))?;
            at += length;
        }
        Ok(())
    }
}

/// The pieces of a zone.
pub(super) fn pieces(start: u64, length: u64) -> impl Iterator<Item = Range<u64>> {
    let end = start + length;
    (0..length.div_ceil(PIECE)).map(move |index| {
        let at = start + index * PIECE;
        at..end.min(at + PIECE)
    })
}

pub(super) fn read(
    data: &dyn Backend,
    side: &Side,
    piece: &Range<u64>,
) -> Result<Sectors<Cipher>, IoError> {
    read_at(data, side.place(piece.start), piece)
}

fn read_at(data: &dyn Backend, place: u64, piece: &Range<u64>) -> Result<Sectors<Cipher>, IoError> {
    let length = usize::try_from(piece.end - piece.start).unwrap_or(0);
    let mut sectors = Sectors::<Cipher>::with_len(length);
    data.read_at(place, &mut sectors)?;
    Ok(sectors)
}
