//! A zone of the data in memory, before it is converted.

use std::ops::Range;

use super::error::ReencryptError;
use super::side::{OldBytes, convert};
use crate::backend::{Backend, IoError};
use crate::door;
use crate::layout::side::{OldSide, Side};
use crate::sectors::{Cipher, Sectors};

/// The bytes that are read, converted and written at once.
pub(super) const PIECE: u64 = 256 << 10;

/// The old bytes of a zone.
pub(super) struct Zone {
    pub(super) start: u64,
    pub(super) length: u64,
    pieces: Vec<OldBytes>,
}

impl Zone {
    /// Reads a zone of the data.
    pub(super) fn read(
        data: &dyn Backend,
        old: &OldSide,
        start: u64,
        length: u64,
    ) -> Result<Self, IoError> {
        let read = |piece: Range<u64>| read_old(data, old, &piece);
        let pieces = pieces(start, length)
            .map(read)
            .collect::<Result<_, IoError>>()?;
        Ok(Self {
            start,
            length,
            pieces,
        })
    }

    /// The pieces in order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &OldBytes> {
        self.pieces.iter()
    }

    /// The old bytes of a range of the zone.
    pub(super) fn part(&self, range: &Range<u64>) -> OldBytes {
        let length = usize::try_from(range.end - range.start).unwrap_or(0);
        let mut part = match self.pieces.first() {
            Some(first) => first.with_len(length),
            None => OldBytes::Encrypted(Sectors::empty()),
        };
        let mut rest = part.as_mut_slice();
        let mut at = usize::try_from(range.start - self.start).unwrap_or(0);
        let size = usize::try_from(PIECE).unwrap_or(1);
        while !rest.is_empty() {
            let piece = self.pieces[at / size].as_slice();
            let from = &piece[at % size..];
            let (now, later) = rest.split_at_mut(from.len().min(rest.len()));
            now.copy_from_slice(&from[..now.len()]);
            at += now.len();
            rest = later;
        }
        part
    }

    /// Writes the new ciphertext over the old bytes.
    pub(super) fn convert(
        self,
        data: &dyn Backend,
        old: &OldSide,
        new: &Side,
    ) -> Result<(), ReencryptError> {
        let mut at = self.start;
        for piece in self.pieces {
            let length = piece.len() as u64;
            data.write_at(new.place(at), &convert(old, new, at, piece)?)?;
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

/// Reads bytes that are not converted. Plaintext is read by its door.
pub(super) fn read_old(
    data: &dyn Backend,
    old: &OldSide,
    piece: &Range<u64>,
) -> Result<OldBytes, IoError> {
    let (place, length) = (old.place(piece.start), length(piece));
    if let OldSide::Plain { .. } = old {
        return Ok(OldBytes::Plain(door::read_unencrypted(
            data, place, length,
        )?));
    }
    let mut sectors = Sectors::<Cipher>::with_len(length);
    data.read_at(place, &mut sectors)?;
    Ok(OldBytes::Encrypted(sectors))
}

/// Reads bytes of which nothing says yet whether they are converted. They may be plaintext, so the
/// buffer is wiped.
pub(super) fn read_undecided(
    data: &dyn Backend,
    new: &Side,
    piece: &Range<u64>,
) -> Result<Sectors<Cipher>, IoError> {
    let mut sectors = Sectors::<Cipher>::unencrypted(length(piece));
    data.read_at(new.place(piece.start), &mut sectors)?;
    Ok(sectors)
}

fn length(piece: &Range<u64>) -> usize {
    usize::try_from(piece.end - piece.start).unwrap_or(0)
}
