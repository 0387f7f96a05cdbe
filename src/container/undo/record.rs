//! The content of an undo record: the old bytes of each range that a change writes, and the hashes
//! of what the change writes there.
//!
//! A disk writes each unit of 512 bytes completely or not at all. So after a crash every unit holds
//! its old bytes, or the bytes of one of the writes of the change. Any other content is from
//! another program, which has changed the header since. This module only reads the storage, except
//! for [`UndoRecord::write_back`] and its like.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::ROOM_MAGIC;
use crate::backend::{Backend, IoError};
use crate::container::overlay::{Overlay, lay_over};
use crate::door;

/// The size that a disk writes atomically, in bytes. Units begin at multiples of it.
const UNIT: usize = 512;
const UNIT_64: u64 = UNIT as u64;

/// All of the storage.
const EVERYWHERE: Range<u64> = 0..u64::MAX;

/// The magic of records without hashes, which only older versions wrote.
const MAGIC_1: &[u8; 16] = b"luksmith undo 1\n";
const MAGIC_2: &[u8; 16] = b"luksmith undo 2\n";

/// The offset of the UUID field in both versions of LUKS. It is in the first unit.
const UUID_OFFSET: u64 = 168;

type Uuid = [u8; 40];
type Hash = [u8; 32];

/// The old bytes by offset, and what the change writes there.
///
/// The layout, in little-endian: magic (16 bytes), SHA-256 of everything after it (32), the UUID
/// fields of the header before and after the change (40 each), the number of ranges (u64), and for
/// each range its offset (u64), its length (u64), its old bytes, and for each of its units the
/// number of hashes (u8) and the hashes (32 each): SHA-256 of the unit after each write of the
/// change, in their order. A unit without hashes keeps its bytes. In version 1 the units are
/// missing.
pub(in crate::container) struct UndoRecord {
    /// The UUID fields before and after the change. Only an image with one of these is rolled back,
    /// not another one under the same name.
    uuids: [Uuid; 2],
    /// By offset. They do not overlap.
    ranges: Vec<Saved>,
    has_hashes: bool,
}

/// A range that the change writes.
struct Saved {
    offset: u64,
    old: Vec<u8>,
    /// For each unit, the hashes of its successive contents.
    new: Vec<Vec<Hash>>,
}

/// A unit: its number, its place in the range, and its present bytes.
type PresentUnit = (usize, Range<usize>, Vec<u8>);

/// What is on the storage in the ranges of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The old bytes.
    Old,
    /// The bytes that the complete change leaves.
    New,
    /// Some units are old, and others are new.
    Mixed,
    /// The unit at this offset is neither old nor new.
    Other(u64),
}

/// Whether these bytes start like a record. The record may be damaged.
pub(in crate::container) fn is_record(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC_1) || bytes.starts_with(MAGIC_2) || bytes.starts_with(ROOM_MAGIC)
}

/// Whether these bytes may be what a failed disk has left of a record: they start like one, or end
/// before that can be seen.
pub(in crate::container) fn is_remnant(bytes: &[u8]) -> bool {
    is_record(bytes)
        || MAGIC_1.starts_with(bytes)
        || MAGIC_2.starts_with(bytes)
        || ROOM_MAGIC.starts_with(bytes)
}

impl UndoRecord {
    /// The record of a change that makes these writes, in this order. A range past the end of the
    /// storage is an error, since a plan never grows the storage.
    pub(in crate::container) fn take<'a>(
        storage: &dyn Backend,
        writes: impl Iterator<Item = (u64, &'a [u8])> + Clone,
    ) -> Result<Self, IoError> {
        let before = uuid_of(storage)?;
        let mut after = before;
        for (offset, bytes) in writes.clone() {
            if offset == 0
                && let Some(uuid) = bytes.get(168..208).and_then(|field| field.first_chunk())
            {
                after = *uuid;
            }
        }
        let ranges = whole_units(writes.clone(), storage.geometry().size)
            .into_iter()
            .map(|range| {
                let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
                let old = door::read(storage, range.start, length)?;
                let new = contents(range.start, &old, writes.clone());
                let offset = range.start;
                Ok(Saved { offset, old, new })
            })
            .collect::<Result<_, IoError>>()?;
        Ok(Self {
            uuids: [before, after],
            ranges,
            has_hashes: true,
        })
    }

    pub(in crate::container) fn to_bytes(&self) -> Vec<u8> {
        let mut body = self.uuids.concat();
        body.extend((self.ranges.len() as u64).to_le_bytes());
        for saved in &self.ranges {
            body.extend(saved.offset.to_le_bytes());
            body.extend((saved.old.len() as u64).to_le_bytes());
            body.extend(&saved.old);
            for hashes in &saved.new {
                let count = u8::try_from(hashes.len()).unwrap_or(u8::MAX);
                body.push(count);
                hashes
                    .iter()
                    .take(count.into())
                    .for_each(|hash| body.extend(hash));
            }
        }
        let mut record = MAGIC_2.to_vec();
        record.extend(hash(&body));
        record.extend(body);
        record
    }

    /// Reads a record of either version. `None` means that it is not complete, or that its ranges
    /// are not in order.
    pub(super) fn parse(record: &[u8]) -> Option<Self> {
        let (magic, rest) = record.split_first_chunk::<16>()?;
        let has_hashes = match magic {
            MAGIC_1 => false,
            MAGIC_2 => true,
            _ => return None,
        };
        let (stored, body) = rest.split_first_chunk()?;
        if *stored != hash(body) {
            return None;
        }
        let (before, rest) = body.split_first_chunk()?;
        let (after, mut rest) = rest.split_first_chunk()?;
        let mut ranges = Vec::new();
        let mut end = 0;
        for _ in 0..take_u64(&mut rest)? {
            let saved = Saved::parse(&mut rest, has_hashes)?;
            if saved.offset < end || saved.old.is_empty() {
                return None;
            }
            end = saved.end()?;
            ranges.push(saved);
        }
        rest.is_empty().then_some(Self {
            uuids: [*before, *after],
            ranges,
            has_hashes,
        })
    }

    /// Whether the record says what the change writes. Records of version 1 do not.
    pub(super) fn has_hashes(&self) -> bool {
        self.has_hashes
    }

    /// The storage as it will be after a rollback. It cannot be written.
    pub(super) fn rolled_back<'a>(&'a self, storage: &'a dyn Backend) -> Overlay<'a> {
        let saved = self.ranges.iter();
        Overlay::new(storage, saved.map(|saved| (saved.offset, &saved.old[..])))
    }

    /// Whether the storage has one of the two UUIDs of the record.
    pub(super) fn is_of(&self, storage: &dyn Backend) -> Result<bool, IoError> {
        Ok(self.uuids.contains(&uuid_of(storage)?))
    }

    /// The ranges of the record, as offsets on the storage.
    pub(in crate::container) fn places(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges
            .iter()
            .map(|saved| saved.offset..saved.offset + saved.old.len() as u64)
    }

    /// The end of the last range.
    pub(super) fn end(&self) -> u64 {
        self.places().last().map_or(0, |range| range.end)
    }

    /// Whether the record has all bytes of this part of the storage.
    pub(super) fn covers(&self, part: &Range<u64>) -> bool {
        self.places()
            .any(|range| range.start <= part.start && part.end <= range.end)
    }

    /// Compares the storage with the record.
    pub(super) fn find(&self, storage: &dyn Backend) -> Result<Found, IoError> {
        let found = self.find_in(storage, &EVERYWHERE)?;
        Ok(found.unwrap_or(Found::Old))
    }

    /// Compares the units that begin in this part of the storage. `None` if the record has none
    /// there.
    pub(super) fn find_in(
        &self,
        storage: &dyn Backend,
        part: &Range<u64>,
    ) -> Result<Option<Found>, IoError> {
        let (mut none, mut all_old, mut all_new) = (true, true, true);
        for saved in &self.ranges {
            for (number, unit, present) in saved.read_units(storage, part)? {
                let old = &saved.old[unit.clone()];
                let is_old = present == old;
                let hashes = saved.new.get(number).map_or(&[][..], Vec::as_slice);
                let present = hash(&present);
                if !is_old && !hashes.contains(&present) {
                    return Ok(Some(Found::Other(saved.offset + unit.start as u64)));
                }
                none = false;
                all_old &= is_old || hashes.is_empty();
                all_new &= hashes.last().is_none_or(|last| present == *last);
            }
        }
        Ok((!none).then_some(match (all_old, all_new) {
            (true, _) => Found::Old,
            (false, true) => Found::New,
            (false, false) => Found::Mixed,
        }))
    }

    /// Writes the old bytes of all units that differ from them, and makes that durable. Bytes that
    /// are old already are not written, since the storage may have no space for them.
    pub(in crate::container) fn write_back(&self, storage: &dyn Backend) -> Result<(), IoError> {
        self.write_back_in(storage, &[EVERYWHERE])
    }

    /// As [`write_back`](Self::write_back), for the units that begin in these parts of the storage.
    pub(super) fn write_back_in(
        &self,
        storage: &dyn Backend,
        parts: &[Range<u64>],
    ) -> Result<(), IoError> {
        for (saved, part) in self
            .ranges
            .iter()
            .flat_map(|saved| parts.iter().map(move |part| (saved, part)))
        {
            let mut differs: Option<Range<usize>> = None;
            for (_, unit, present) in saved.read_units(storage, part)? {
                if saved.old[unit.clone()] != *present {
                    differs = Some(differs.map_or(unit.start, |run| run.start)..unit.end);
                } else if let Some(run) = differs.take() {
                    saved.write(storage, run)?;
                }
            }
            if let Some(run) = differs {
                saved.write(storage, run)?;
            }
        }
        storage.flush()
    }

    /// Writes the old bytes of all ranges, although they are there already. The storage then has
    /// space for them.
    pub(in crate::container) fn occupy(&self, storage: &dyn Backend) -> Result<(), IoError> {
        for saved in &self.ranges {
            saved.write(storage, 0..saved.old.len())?;
        }
        storage.flush()
    }
}

impl Saved {
    fn parse(rest: &mut &[u8], has_hashes: bool) -> Option<Self> {
        let offset = take_u64(rest)?;
        let length = usize::try_from(take_u64(rest)?).ok()?;
        let (old, mut after) = rest.split_at_checked(length)?;
        offset.checked_add(length as u64)?;
        let mut new = Vec::new();
        if has_hashes {
            for _ in Units::new(offset, length).all() {
                let (count, hashes) = after.split_first()?;
                let (hashes, next) = hashes.split_at_checked(usize::from(*count) * 32)?;
                let hashes = hashes.chunks_exact(32);
                new.push(hashes.filter_map(|hash| hash.try_into().ok()).collect());
                after = next;
            }
        }
        *rest = after;
        let old = old.to_vec();
        Some(Self { offset, old, new })
    }

    fn units(&self) -> Units {
        Units::new(self.offset, self.old.len())
    }

    /// The units that begin in this part of the storage.
    fn read_units(
        &self,
        storage: &dyn Backend,
        part: &Range<u64>,
    ) -> Result<Vec<PresentUnit>, IoError> {
        let units = self.units().all().enumerate();
        let units = units.filter(|(_, unit)| part.contains(&(self.offset + unit.start as u64)));
        let units: Vec<_> = units.collect();
        let (Some((_, first)), Some((_, last))) = (units.first(), units.last()) else {
            return Ok(Vec::new());
        };
        let from = first.start;
        let present = door::read(storage, self.offset + from as u64, last.end - from)?;
        let with_bytes = |(number, unit): (usize, Range<usize>)| {
            let bytes = present[unit.start - from..unit.end - from].to_vec();
            (number, unit, bytes)
        };
        Ok(units.into_iter().map(with_bytes).collect())
    }

    fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.old.len() as u64)
    }

    fn write(&self, storage: &dyn Backend, part: Range<usize>) -> Result<(), IoError> {
        door::write(storage, self.offset + part.start as u64, &self.old[part])
    }
}

/// The ranges of the writes in whole units, up to the end of the storage, without overlaps.
fn whole_units<'a>(writes: impl Iterator<Item = (u64, &'a [u8])>, size: u64) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = writes
        .filter(|(_, bytes)| !bytes.is_empty())
        .map(|(offset, bytes)| {
            let end = offset + bytes.len() as u64;
            offset / UNIT_64 * UNIT_64..end.next_multiple_of(UNIT_64).min(size).max(end)
        })
        .collect();
    sorted.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The hashes of the successive contents of each unit of a range.
fn contents<'a>(
    offset: u64,
    old: &[u8],
    writes: impl Iterator<Item = (u64, &'a [u8])>,
) -> Vec<Vec<Hash>> {
    let units = Units::new(offset, old.len());
    let mut now = old.to_vec();
    let mut new = vec![Vec::new(); units.count()];
    for (at, bytes) in writes {
        for number in units.of(lay_over(&mut now, offset, bytes, at)) {
            let unit = units.at(number);
            let content = &now[unit.clone()];
            if !new[number].is_empty() || *content != old[unit] {
                new[number].push(hash(content));
            }
        }
    }
    new
}

/// The units of the bytes of a range. The first and the last one may be shorter.
#[derive(Clone, Copy)]
struct Units {
    /// The number of bytes of the first unit that are before the range.
    before: usize,
    length: usize,
}

impl Units {
    fn new(offset: u64, length: usize) -> Self {
        let before = usize::try_from(offset % UNIT_64).unwrap_or(0);
        Self { before, length }
    }

    fn count(self) -> usize {
        match self.length {
            0 => 0,
            length => (self.before + length).div_ceil(UNIT),
        }
    }

    /// A unit, as a range of the bytes.
    fn at(self, number: usize) -> Range<usize> {
        let end = (number + 1) * UNIT - self.before;
        (number * UNIT).saturating_sub(self.before)..end.min(self.length)
    }

    /// The numbers of the units that contain these bytes.
    fn of(self, bytes: Range<usize>) -> Range<usize> {
        if bytes.is_empty() {
            return 0..0;
        }
        (self.before + bytes.start) / UNIT..(self.before + bytes.end).div_ceil(UNIT)
    }

    fn all(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.count()).map(move |number| self.at(number))
    }
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_le_bytes(*number))
}

fn uuid_of(storage: &dyn Backend) -> Result<Uuid, IoError> {
    let field = door::read(storage, UUID_OFFSET, size_of::<Uuid>())?;
    Ok(field.first_chunk().copied().unwrap_or([0; 40]))
}

fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::MemoryBackend;

    /// A storage whose size is not in whole units, and writes that are not either.
    fn storage() -> MemoryBackend {
        MemoryBackend::from_bytes((0..250).cycle().take(5000).collect())
    }

    fn writes() -> Vec<(u64, Vec<u8>)> {
        vec![
            (100, vec![1; 1500]),
            (4900, vec![2; 100]),
            (600, vec![3; 8]),
        ]
    }

    fn take(storage: &MemoryBackend) -> UndoRecord {
        let writes = writes();
        let writes = writes.iter().map(|(at, bytes)| (*at, bytes.as_slice()));
        let writes = writes.chain([(3000, &[][..])]);
        let record = UndoRecord::take(storage, writes).unwrap();
        UndoRecord::parse(&record.to_bytes()).unwrap()
    }

    #[test]
    fn units_are_old_or_new_after_any_torn_write() {
        let before = storage();
        let record = take(&before);
        let places: Vec<_> = record.places().collect();
        assert_eq!(places, [0..2048, 4608..5000]);
        assert_eq!(record.find(&before).unwrap(), Found::Old);

        let disk = storage();
        for (at, bytes) in writes() {
            let whole = disk.to_bytes();
            // Each unit is written completely, or not at all.
            for cut in (0..=bytes.len()).filter(|cut| (at + *cut as u64).is_multiple_of(512)) {
                let torn = MemoryBackend::from_bytes(whole.clone());
                door::write(&torn, at, &bytes[..cut]).unwrap();
                let found = record.find(&torn).unwrap();
                assert!(!matches!(found, Found::Other(_)), "{at}, {cut}: {found:?}");
                record.write_back(&torn).unwrap();
                assert!(torn.to_bytes() == before.to_bytes());
            }
            assert_ne!(record.find(&disk).unwrap(), Found::New);
            door::write(&disk, at, &bytes).unwrap();
            assert_ne!(record.find(&disk).unwrap(), Found::Old);
        }
        assert_eq!(record.find(&disk).unwrap(), Found::New);
    }

    #[test]
    fn a_change_of_another_program_is_found() {
        let disk = storage();
        let record = take(&disk);
        for (at, unit) in [(0, 0), (599, 512), (2047, 1536), (4999, 4608)] {
            for written in [false, true] {
                let disk = storage();
                if written {
                    for (at, bytes) in writes() {
                        door::write(&disk, at, &bytes).unwrap();
                    }
                }
                door::write(&disk, at, &[0xff]).unwrap();
                assert_eq!(record.find(&disk).unwrap(), Found::Other(unit));
            }
        }
        door::write(&disk, 2048, &[0xff; 512]).unwrap();
        assert_eq!(record.find(&disk).unwrap(), Found::Old);
    }
}
