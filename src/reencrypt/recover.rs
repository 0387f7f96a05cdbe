//! After a cut: decides for each block of the hot zone whether it is converted, and converts the
//! others.
//!
//! A block is old if its checksum agrees. It is converted if its plaintext under the new key,
//! encrypted with the old one, has that checksum. If clients wrote to the volume meanwhile, any
//! other block is what a client wrote with the new key. If none did, any other block may be torn or
//! rotten, and is refused: to take it for a converted one would lose it. Nothing is written before
//! each block of the zone is decided.

use std::ops::Range;

use luksmith_formats::Hash;
use luksmith_formats::luks2::{Reencryption, Resilience};
use sha2::{Digest as _, Sha256};

use super::area::{CopyOf, Trailer};
use super::error::ReencryptError;
use super::side::{OldBytes, convert, convert_back};
use super::zone::{PIECE, pieces, read_old, read_undecided};
use crate::backend::Backend;
use crate::container::Container;
use crate::door;
use crate::kdf::HashFunction;
use crate::layout::side::{OldSide, Side};
use crate::layout::two_sides::Block;
use crate::sectors::{Cipher, Sectors};

/// What a storage writes atomically in any case, in bytes.
const SECTOR: usize = 512;

/// A reencryption that was interrupted in a zone.
pub(super) struct Interrupted<'a> {
    pub(super) container: &'a Container,
    pub(super) data: &'a dyn Backend,
    pub(super) found: &'a Reencryption,
    pub(super) old: &'a OldSide,
    pub(super) new: &'a Side,
    /// The size of the data in bytes.
    pub(super) size: u64,
    /// The unit of a zone in bytes.
    pub(super) unit: u64,
}

/// What is known of the hot zone.
pub(super) enum Decided {
    /// Every block is converted.
    Converted,
    /// Each block is on its own. They have this size in bytes.
    Blocks(Vec<Block>, usize),
    /// No block is converted.
    Untouched,
    /// Each sector is converted or not, and the journal has the old ciphertext of all.
    Journaled,
}

impl Interrupted<'_> {
    /// Decides the hot zone, and writes nothing. With `unverified`, sectors that are neither those
    /// of the journal nor converted are no error.
    pub(super) fn decide(
        &self,
        start: u64,
        length: u64,
        unverified: bool,
    ) -> Result<Decided, ReencryptError> {
        let unit = self.unit;
        if !length.is_multiple_of(unit) || !start.is_multiple_of(unit) {
            return Err(ReencryptError::SizeNotWhole { size: length, unit });
        }
        match &self.found.state.resilience {
            Resilience::Checksum { hash, sector_size } => {
                self.decide_checksums((start, length), (*hash, *sector_size))
            }
            Resilience::Journal => self.decide_journal((start, length), unverified),
            _ => Err(ReencryptError::Resilience),
        }
    }

    /// Checks that the hot zone can be recovered, and writes nothing.
    pub(super) fn check(
        &self,
        start: u64,
        length: u64,
        unverified: bool,
    ) -> Result<(), ReencryptError> {
        match self.decide(start, length, unverified)? {
            Decided::Blocks(blocks, size) if !unverified => {
                unverified_blocks(start, &blocks, size).map_or(Ok(()), Err)
            }
            _ => Ok(()),
        }
    }

    /// Recovers the hot zone, and returns the end of what is converted. The caller flushes.
    pub(super) fn recover(
        &self,
        start: u64,
        length: u64,
        unverified: bool,
    ) -> Result<u64, ReencryptError> {
        let end = start + length;
        match self.decide(start, length, unverified)? {
            Decided::Converted => Ok(end),
            Decided::Untouched => Ok(start),
            Decided::Journaled => {
                for piece in pieces(start, length) {
                    let before = self.journaled(start, &piece)?;
                    let after = convert(self.old, self.new, piece.start, before)?;
                    self.data.write_at(self.new.place(piece.start), &after)?;
                }
                Ok(end)
            }
            Decided::Blocks(blocks, size) => {
                if let Some(error) = unverified_blocks(start, &blocks, size)
                    && !unverified
                {
                    return Err(error);
                }
                // Nothing shows that the conversion had begun.
                let also = match blocks.contains(&Block::New) {
                    true => Block::Old,
                    false => Block::Unknown,
                };
                let is_old = |block: &Block| *block == Block::Old || *block == also;
                self.convert_blocks((start, length), &blocks, size, is_old)?;
                Ok(end)
            }
        }
    }

    fn convert_blocks(
        &self,
        (start, length): (u64, u64),
        blocks: &[Block],
        size: usize,
        is_old: impl Fn(&Block) -> bool,
    ) -> Result<(), ReencryptError> {
        let in_piece = usize::try_from(PIECE).unwrap_or(size) / size;
        for (blocks, piece) in blocks.chunks(in_piece).zip(pieces(start, length)) {
            let mut at = 0;
            while let Some(rest) = blocks.get(at..).filter(|rest| !rest.is_empty()) {
                let run = rest.iter().take_while(|block| is_old(block)).count();
                if run > 0 {
                    let from = piece.start + (at * size) as u64;
                    self.convert_in_place(from..from + (run * size) as u64)?;
                }
                at += run.max(1);
            }
        }
        Ok(())
    }

    fn decide_checksums(
        &self,
        (start, length): (u64, u64),
        (hash, block): (Hash, u32),
    ) -> Result<Decided, ReencryptError> {
        let CopyOf::Checksums { hash, block } = CopyOf::checksums(hash, block)? else {
            return Err(ReencryptError::Resilience);
        };
        let end = start + length;
        let used = length / block as u64 * hash.size() as u64;
        let area = &self.found.state.area;
        if used > area.end - area.start {
            return Err(ReencryptError::Resilience);
        }
        let trailer = Trailer::read(self.container, self.found, used)?;
        if trailer.is_some_and(|trailer| trailer.start == end) {
            // The checksums of the next zone were written, so this one was durable.
            return Ok(Decided::Converted);
        }
        let storage = &**self.container.header_storage();
        let sums = door::read(storage, area.start, usize::try_from(used).unwrap_or(0))?;
        let mut blocks = Vec::with_capacity(sums.len() / hash.size());
        for piece in pieces(start, length) {
            let expected = sums.chunks(hash.size()).skip(blocks.len());
            let current = read_undecided(self.data, self.new, &piece)?;
            let agrees = agreeing(hash, block, current.as_slice(), expected.clone());
            let converted = match agrees.iter().all(|old| *old) {
                true => Vec::new(),
                false => {
                    let back = convert_back(self.new, self.old, piece.start, current);
                    agreeing(hash, block, back.as_slice(), expected)
                }
            };
            blocks.extend(agrees.iter().enumerate().map(|(index, is_old)| {
                match (is_old, converted.get(index)) {
                    (true, _) => Block::Old,
                    (false, Some(true)) => Block::New,
                    (false, _) => Block::Unknown,
                }
            }));
        }
        if !blocks.contains(&Block::Unknown) {
            return Ok(Decided::Blocks(blocks, block));
        }
        let changed = trailer.is_some_and(|trailer| {
            (trailer.start, trailer.length) == (start, length)
                && trailer.sum != <[u8; 32]>::from(Sha256::digest(&sums))
        });
        if trailer.is_none() && self.is_of_previous_zone((hash, block), start, &blocks, &sums)? {
            return Ok(Decided::Untouched);
        }
        if changed && self.is_of_next_zone((hash, block), end, &blocks, &sums)? {
            return Ok(Decided::Converted);
        }
        if self.found.online {
            // What is neither is what a client wrote with the new key.
            for block in &mut blocks {
                if *block == Block::Unknown {
                    *block = Block::New;
                }
            }
        }
        Ok(Decided::Blocks(blocks, block))
    }

    /// Whether the checksums of this zone were only written in part, over those of the zone before
    /// it, by another program, which makes them durable before it converts a block: no block is
    /// converted, and each checksum that does not agree is that of a block of the zone before.
    fn is_of_previous_zone(
        &self,
        (hash, block): (HashFunction, usize),
        start: u64,
        blocks: &[Block],
        sums: &[u8],
    ) -> Result<bool, ReencryptError> {
        if self.found.online || start == 0 || blocks.contains(&Block::New) {
            return Ok(false);
        }
        let area = &self.found.state.area;
        let most = (area.end - area.start) / hash.size() as u64 * block as u64;
        let length = (blocks.len() * block) as u64;
        // A zone is as long as this one, which the last one may not be, or as long as possible.
        for before in [length, most] {
            if let Some(first) = start.checked_sub(before)
                && self.have_sums_of((hash, block), first..start, blocks, sums)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the checksums of unknown blocks are those of the blocks of a range that is
    /// converted, from before that.
    fn have_sums_of(
        &self,
        (hash, block): (HashFunction, usize),
        range: Range<u64>,
        blocks: &[Block],
        sums: &[u8],
    ) -> Result<bool, ReencryptError> {
        let sums = blocks.iter().zip(sums.chunks(hash.size())).enumerate();
        let unknown = sums.filter(|(_, (state, _))| **state == Block::Unknown);
        for (index, (_, expected)) in unknown {
            let at = range.start + (index * block) as u64;
            let end = at + block as u64;
            if end > range.end {
                return Ok(false);
            }
            let there = read_undecided(self.data, self.new, &(at..end))?;
            let back = convert_back(self.new, self.old, at, there);
            let mut sum = Vec::new();
            hash.append(back.as_slice(), &mut sum);
            if sum != expected {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the checksums were being overwritten with those of the zone at `next`: no block is
    /// old, and each checksum that does not agree is that of a block there, which is not converted.
    fn is_of_next_zone(
        &self,
        (hash, block): (HashFunction, usize),
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
            let there = read_old(self.data, self.old, &(at..end))?;
            let mut sum = Vec::new();
            hash.append(there.as_slice(), &mut sum);
            if sum != expected {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn convert_in_place(&self, range: Range<u64>) -> Result<(), ReencryptError> {
        let at = range.start;
        let bytes = read_old(self.data, self.old, &range)?;
        let sectors = convert(self.old, self.new, at, bytes)?;
        Ok(self.data.write_at(self.new.place(at), &sectors)?)
    }

    fn decide_journal(
        &self,
        (start, length): (u64, u64),
        unverified: bool,
    ) -> Result<Decided, ReencryptError> {
        let area = &self.found.state.area;
        if length > area.end - area.start {
            return Err(ReencryptError::Resilience);
        }
        let mut begun = false;
        let mut unknown: Option<u64> = None;
        let mut count = 0;
        for piece in pieces(start, length) {
            let current = read_undecided(self.data, self.new, &piece)?;
            let before = self.journaled(start, &piece)?;
            let kept = before.as_slice().to_vec();
            let after = convert(self.old, self.new, piece.start, before)?;
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
        match unknown {
            // The journal is not the one of this zone, of which nothing was converted: another
            // program declared it hot before its journal was durable.
            Some(_) if !begun => Ok(Decided::Untouched),
            Some(at) if !unverified => Err(ReencryptError::Unverified {
                block: (at - start) / SECTOR as u64,
                size: SECTOR as u64,
                at,
                count,
                journaled: true,
            }),
            _ => Ok(Decided::Journaled),
        }
    }

    /// The old ciphertext of a piece of the zone at `start`, from the journal.
    fn journaled(&self, start: u64, piece: &Range<u64>) -> Result<OldBytes, ReencryptError> {
        let length = usize::try_from(piece.end - piece.start).unwrap_or(0);
        let at = self.found.state.area.start + (piece.start - start);
        let bytes = door::read(&**self.container.header_storage(), at, length)?;
        let mut sectors = Sectors::<Cipher>::with_len(length);
        sectors.as_mut_slice().copy_from_slice(&bytes);
        Ok(OldBytes::Encrypted(sectors))
    }
}

/// The error for the first block that nothing decides, if there is one.
fn unverified_blocks(start: u64, blocks: &[Block], size: usize) -> Option<ReencryptError> {
    let is_unknown = |block: &Block| *block == Block::Unknown;
    let first = blocks.iter().position(is_unknown)?;
    let count = blocks.iter().filter(|block| is_unknown(block)).count();
    Some(ReencryptError::Unverified {
        block: first as u64,
        size: size as u64,
        at: start + (first * size) as u64,
        count: count as u64,
        journaled: false,
    })
}

/// Which blocks of a piece have the expected checksums.
fn agreeing<'a>(
    hash: HashFunction,
    block: usize,
    piece: &[u8],
    expected: impl Iterator<Item = &'a [u8]>,
) -> Vec<bool> {
    let blocks = piece.chunks(block);
    let agrees = |(block, expected): (&[u8], &[u8])| {
        let mut sum = Vec::with_capacity(expected.len());
        hash.append(block, &mut sum);
        sum == expected
    };
    blocks.zip(expected).map(agrees).collect()
}
