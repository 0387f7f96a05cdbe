//! After a cut: decides for each block of the hot zone whether it is converted, and converts the
//! others.
//!
//! A block is old if its checksum agrees. It is converted if its plaintext under the new key,
//! encrypted with the old one, has that checksum. Any other block may be torn or rotten, and is
//! refused: to take it for a converted one would lose it. Nothing is written before each block of
//! the zone is decided.

use std::ops::Range;

use luksmith_formats::Hash;
use luksmith_formats::luks2::Resilience;
use sha2::{Digest as _, Sha256};

use super::area::{CopyOf, Trailer, append_checksum};
use super::side::{Side, convert};
use super::zone::{pieces, read};
use super::{Reencrypt, ReencryptError};
use crate::door;
use crate::sectors::{Cipher, Sectors};

/// What a storage writes atomically in any case, in bytes.
const SECTOR: usize = 512;

/// What is known of a block of the hot zone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Old,
    Converted,
    Unknown,
}

impl Reencrypt {
    /// Recovers the hot zone, and returns the end of what is converted. The caller flushes.
    pub(super) fn recover(
        &self,
        start: u64,
        length: u64,
        force: bool,
    ) -> Result<u64, ReencryptError> {
        let old = self.old.as_ref().ok_or(ReencryptError::NotPending)?;
        let unit = self.unit();
        if !length.is_multiple_of(unit) || !start.is_multiple_of(unit) {
            return Err(ReencryptError::SizeNotWhole { size: length, unit });
        }
        match &self.found.state.resilience {
            Resilience::Checksum { hash, sector_size } => {
                self.recover_checksums(old, (start, length), (*hash, *sector_size), force)
            }
            Resilience::Journal => self.recover_journal(old, (start, length), force),
            _ => Err(ReencryptError::Resilience),
        }
    }

    fn recover_checksums(
        &self,
        old: &Side,
        (start, length): (u64, u64),
        (hash, block): (Hash, u32),
        force: bool,
    ) -> Result<u64, ReencryptError> {
        let CopyOf::Checksums { hash, block } = CopyOf::checksums(hash, block)? else {
            return Err(ReencryptError::Resilience);
        };
        let end = start + length;
        let used = length / block as u64 * hash.size() as u64;
        let area = &self.found.state.area;
        if used > area.end - area.start {
            return Err(ReencryptError::Resilience);
        }
        let trailer = Trailer::read(&self.container, &self.found, used)?;
        if trailer.is_some_and(|trailer| trailer.start == end) {
            // The checksums of the next zone were written, so this one was durable.
            return Ok(end);
        }
        let storage = self.container.header_storage();
        let sums = door::read(storage, area.start, usize::try_from(used).unwrap_or(0))?;
        let mut blocks = Vec::with_capacity(sums.len() / hash.size());
        for piece in pieces(start, length) {
            let expected = sums.chunks(hash.size()).skip(blocks.len());
            let current = read(&*self.data, &self.new, &piece)?;
            let agrees = agreeing(hash, block, &current, expected.clone());
            let converted = match agrees.iter().all(|old| *old) {
                true => Vec::new(),
                false => {
                    let back = convert(&self.new, old, piece.start, current);
                    agreeing(hash, block, &back, expected)
                }
            };
            blocks.extend(agrees.iter().enumerate().map(|(index, is_old)| {
                match (is_old, converted.get(index)) {
                    (true, _) => Block::Old,
                    (false, Some(true)) => Block::Converted,
                    (false, _) => Block::Unknown,
                }
            }));
        }
        let unknown = blocks.iter().filter(|block| **block == Block::Unknown);
        let count = unknown.count() as u64;
        let mut to_convert = Block::Old;
        if count > 0 {
            let changed = trailer.is_some_and(|trailer| {
                (trailer.start, trailer.length) == (start, length)
                    && trailer.sum != <[u8; 32]>::from(Sha256::digest(&sums))
            });
            if changed && self.is_of_next_zone(old, (hash, block), end, &blocks, &sums)? {
                return Ok(end);
            }
            if !force {
                let first = blocks.iter().position(|block| *block == Block::Unknown);
                let number = first.unwrap_or(0) as u64;
                return Err(ReencryptError::Unverified {
                    block: number,
                    size: block as u64,
                    at: start + number * block as u64,
                    count,
                });
            }
            if !blocks.contains(&Block::Converted) {
                // Nothing shows that the conversion had begun.
                to_convert = Block::Unknown;
            }
        }
        let is_old = |index: usize| {
            blocks
                .get(index)
                .is_some_and(|block| *block == Block::Old || *block == to_convert)
        };
        for (index, piece) in pieces(start, length).enumerate() {
            let first = index * usize::try_from(super::zone::PIECE).unwrap_or(0) / block;
            let count = usize::try_from(piece.end - piece.start).unwrap_or(0) / block;
            let mut at = 0;
            while at < count {
                let run = (at..count).take_while(|at| is_old(first + at)).count();
                if run > 0 {
                    let from = piece.start + (at * block) as u64;
                    self.convert_in_place(old, from..from + (run * block) as u64)?;
                }
                at += run.max(1);
            }
        }
        Ok(end)
    }

    /// Whether the checksums were being overwritten with those of the zone at `next`: no block is
    /// old, and each checksum that does not agree is that of a block there, which is not converted.
    fn is_of_next_zone(
        &self,
        old: &Side,
        (hash, block): (Hash, usize),
        next: u64,
        blocks: &[Block],
        sums: &[u8],
    ) -> Result<bool, ReencryptError> {
        if blocks.contains(&Block::Old) {
            return Ok(false);
        }
        let sums = sums.chunks(hash.size());
        let unknown = blocks.iter().zip(sums).enumerate();
        let unknown = unknown.filter(|(_, (state, _))| **state == Block::Unknown);
        for (index, (_, expected)) in unknown {
            let at = next + (index * block) as u64;
            let end = at + block as u64;
            if end > self.size {
                return Ok(false);
            }
            let there = read(&*self.data, old, &(at..end))?;
            let mut sum = Vec::new();
            append_checksum(hash, there.as_slice(), &mut sum);
            if sum != expected {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn convert_in_place(&self, old: &Side, range: Range<u64>) -> Result<(), ReencryptError> {
        let at = range.start;
        let sectors = convert(old, &self.new, at, read(&*self.data, old, &range)?);
        Ok(self.data.write_at(self.new.place(at), &sectors)?)
    }

    fn recover_journal(
        &self,
        old: &Side,
        (start, length): (u64, u64),
        force: bool,
    ) -> Result<u64, ReencryptError> {
        let area = &self.found.state.area;
        if length > area.end - area.start {
            return Err(ReencryptError::Resilience);
        }
        let mut begun = false;
        let mut unknown: Option<u64> = None;
        let mut count = 0;
        for piece in pieces(start, length) {
            let current = read(&*self.data, &self.new, &piece)?;
            let before = self.journaled(start, &piece)?;
            let kept = before.as_slice().to_vec();
            let after = convert(old, &self.new, piece.start, before);
            let sectors = current.as_slice().chunks(SECTOR);
            let sectors = sectors.zip(kept.chunks(SECTOR).zip(after.as_slice().chunks(SECTOR)));
            for (index, (is, (before, after))) in sectors.enumerate() {
                if is == before {
                    continue;
                }
                if is == after {
                    begun = true;
                    continue;
                }
                count += 1;
                unknown.get_or_insert(piece.start + (index * SECTOR) as u64);
            }
        }
        if let Some(at) = unknown {
            if !begun {
                // The journal is not the one of this zone, of which nothing was converted: another
                // program declared it hot before its journal was durable.
                return Ok(start);
            }
            if !force {
                return Err(ReencryptError::Unverified {
                    block: (at - start) / SECTOR as u64,
                    size: SECTOR as u64,
                    at,
                    count,
                });
            }
        }
        for piece in pieces(start, length) {
            let before = self.journaled(start, &piece)?;
            let after = convert(old, &self.new, piece.start, before);
            self.data.write_at(self.new.place(piece.start), &after)?;
        }
        Ok(start + length)
    }

    /// The old ciphertext of a piece of the zone at `start`, from the journal.
    fn journaled(&self, start: u64, piece: &Range<u64>) -> Result<Sectors<Cipher>, ReencryptError> {
        let length = usize::try_from(piece.end - piece.start).unwrap_or(0);
        let at = self.found.state.area.start + (piece.start - start);
        let bytes = door::read(self.container.header_storage(), at, length)?;
        let mut sectors = Sectors::<Cipher>::with_len(length);
        sectors.as_mut_slice().copy_from_slice(&bytes);
        Ok(sectors)
    }
}

/// Which blocks of a piece have the expected checksums.
fn agreeing<'a>(
    hash: Hash,
    block: usize,
    piece: &Sectors<Cipher>,
    expected: impl Iterator<Item = &'a [u8]>,
) -> Vec<bool> {
    let blocks = piece.as_slice().chunks(block);
    let agrees = |(block, expected): (&[u8], &[u8])| {
        let mut sum = Vec::with_capacity(expected.len());
        append_checksum(hash, block, &mut sum);
        sum == expected
    };
    blocks.zip(expected).map(agrees).collect()
}
