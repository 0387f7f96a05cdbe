//! The parts of an image that tables and data occupy, to find those that overlap.

use super::source::{Source, Stop};

/// The most extents that are kept. This bounds the memory.
pub(super) const MOST: usize = 1 << 20;

#[derive(Clone, Copy)]
struct Extent {
    start: u64,
    len: u32,
    kind: u8,
}

impl Extent {
    fn end(&self) -> u64 {
        self.start.saturating_add(u64::from(self.len))
    }
}

/// The extents of an image's metadata.
#[derive(Default)]
pub(super) struct Extents {
    kinds: Vec<&'static str>,
    list: Vec<Extent>,
    /// The gap between two extents in which the last searched range lay.
    gap: (u64, u64),
}

/// Two extents that share bytes: the offset, and the kinds of both.
pub(super) struct Overlap {
    pub(super) offset: u64,
    pub(super) what: &'static str,
    pub(super) on: &'static str,
}

/// Describes the place of data that is in the wrong place: the byte, in an image of `size` bytes,
/// and the table that the data overlaps, if any.
pub(super) fn misplaced(offset: u64, size: u64, table: Option<&str>) -> String {
    match table {
        Some(table) => format!("byte {offset}, on the {table}"),
        None => format!("byte {offset} of {size}"),
    }
}

impl Extents {
    /// Adds a range. Of a range over 4 GiB, only the first 4 GiB are added.
    pub(super) fn take(&mut self, start: u64, len: u64, what: &'static str) -> Result<(), Stop> {
        if len == 0 {
            return Ok(());
        }
        if self.list.len() >= MOST {
            return Err(Stop::Budget);
        }
        let known = self.kinds.iter().position(|kind| *kind == what);
        let kind = known.unwrap_or_else(|| {
            self.kinds.push(what);
            self.kinds.len() - 1
        });
        self.list.push(Extent {
            start,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            kind: u8::try_from(kind).unwrap_or(u8::MAX),
        });
        Ok(())
    }

    /// The start and the length of every extent.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.list.iter().map(|one| (one.start, u64::from(one.len)))
    }

    fn name(&self, extent: Extent) -> &'static str {
        self.kinds
            .get(usize::from(extent.kind))
            .copied()
            .unwrap_or("table")
    }

    /// Sorts the extents, and returns the first few that overlap.
    pub(super) fn overlaps(&mut self) -> Vec<Overlap> {
        self.list
            .sort_unstable_by_key(|extent| (extent.start, extent.len));
        self.gap = (0, 0);
        let mut found = Vec::new();
        let mut before: Option<Extent> = None;
        for extent in &self.list {
            if let Some(last) = before.filter(|last| extent.start < last.end()) {
                found.push(Overlap {
                    offset: extent.start,
                    what: self.name(*extent),
                    on: self.name(last),
                });
                if found.len() == 16 {
                    break;
                }
            }
            if before.is_none_or(|last| last.end() < extent.end()) {
                before = Some(*extent);
            }
        }
        found
    }

    /// The kind of the extent that the range from `start` overlaps, if any. The extents have to be
    /// sorted by [`overlaps`](Self::overlaps).
    pub(super) fn under(
        &mut self,
        source: &mut Source<'_>,
        start: u64,
        len: u64,
    ) -> Result<Option<&'static str>, Stop> {
        let end = start.saturating_add(len);
        if self.gap.0 <= start && end <= self.gap.1 {
            return Ok(None);
        }
        // A search takes about as long as reading a few table entries.
        source.spend(256)?;
        let next = self.list.partition_point(|extent| extent.end() <= start);
        if let Some(extent) = self.list.get(next).filter(|extent| extent.start < end) {
            return Ok(Some(self.name(*extent)));
        }
        let before = next.checked_sub(1).and_then(|at| self.list.get(at));
        let after = self.list.get(next);
        self.gap = (
            before.map_or(0, Extent::end),
            after.map_or(u64::MAX, |extent| extent.start),
        );
        Ok(None)
    }
}

/// The most data clusters (or blocks, or grains) that are kept. This bounds the memory.
pub(super) const MOST_DATA: usize = 4 << 20;

/// The offsets of the disk's data, in units of the format.
#[derive(Default)]
pub(super) struct Data {
    places: Vec<u32>,
    /// Whether there were more than are kept, or one with a number over 32 bits.
    pub(super) beyond: bool,
}

impl Data {
    /// Adds data that begins at unit `place`.
    pub(super) fn take(&mut self, place: u64) {
        match u32::try_from(place) {
            Ok(place) if self.places.len() < MOST_DATA => self.places.push(place),
            _ => self.beyond = true,
        }
    }

    /// Sorts the offsets, and returns the first few that are less than `len` units after another.
    pub(super) fn overlaps(&mut self, len: u64) -> Vec<u64> {
        self.places.sort_unstable();
        let pairs = self.places.windows(2);
        pairs
            .map(|pair| (u64::from(pair[0]), u64::from(pair[1])))
            .filter(|(before, place)| place - before < len)
            .map(|(_, place)| place)
            .take(16)
            .collect()
    }
}
