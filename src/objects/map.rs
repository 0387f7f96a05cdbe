//! Where the blocks of the volume are: leaves in limited memory, and how much of each segment is
//! used.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use luksmith_formats::objects::Position;
use luksmith_formats::objects::checkpoint::{Index, LeafPlace, SegmentUse};
use luksmith_formats::objects::leaf::{BLOCKS, Extent};

/// How many leaves are read at once, and how many bytes of them at most if they are several.
const READ_AHEAD: usize = 16;
const READ_AHEAD_BYTES: u64 = 256 << 10;

/// A block of a segment's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: Position,
    pub(super) index: u32,
}

impl Place {
    fn after(self, blocks: u32) -> Self {
        let index = self.index + blocks;
        Self { index, ..self }
    }
}

/// A leaf in memory.
#[derive(Default)]
struct Leaf {
    extents: Vec<Extent>,
    /// Changed since it was last written.
    dirty: bool,
    /// Being written: the new place does not count yet.
    saving: bool,
    used: u64,
}

impl Leaf {
    fn memory(&self) -> usize {
        self.extents.capacity() * size_of::<Extent>() + size_of::<Self>()
    }
}

/// The map of a volume.
pub(super) struct Map {
    leaves: HashMap<u32, Leaf>,
    places: BTreeMap<u32, LeafPlace>,
    /// Every segment that is not deleted, also one without live blocks.
    pub(super) segments: BTreeMap<Position, SegmentUse>,
    /// The memory of the leaves in bytes, and of those that are dirty.
    memory: usize,
    limit: usize,
    clock: u64,
}

/// Some blocks of one leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    pub(super) leaf: u32,
    pub(super) start: u32,
    pub(super) count: u32,
}

/// Divides blocks at the ends of leaves.
pub(super) fn by_leaf(blocks: Range<u64>) -> impl Iterator<Item = Blocks> {
    let mut at = blocks.start;
    std::iter::from_fn(move || {
        if at >= blocks.end {
            return None;
        }
        let leaf = at / u64::from(BLOCKS);
        let end = blocks.end.min((leaf + 1) * u64::from(BLOCKS));
        let start = at - leaf * u64::from(BLOCKS);
        let count = end - at;
        at = end;
        // A volume has fewer leaves than 2^32, and a leaf 8192 blocks.
        Some(Blocks {
            leaf: u32::try_from(leaf).ok()?,
            start: u32::try_from(start).ok()?,
            count: u32::try_from(count).ok()?,
        })
    })
}

impl Map {
    pub(super) fn new(index: &Index, limit: usize) -> Self {
        Self {
            leaves: HashMap::new(),
            places: index.leaves.iter().copied().collect(),
            segments: index.segments.iter().copied().collect(),
            memory: 0,
            limit,
            clock: 0,
        }
    }

    /// Whether a leaf is in memory. If it is not, contains where it is.
    pub(super) fn is_loaded(&mut self, leaf: u32) -> Result<(), Option<LeafPlace>> {
        self.clock += 1;
        match self.leaves.get_mut(&leaf) {
            Some(leaf) => {
                leaf.used = self.clock;
                Ok(())
            }
            None => Err(self.places.get(&leaf).copied()),
        }
    }

    /// The leaves to read at once, of which this one comes first; it is not in memory. If the leaf
    /// before is in memory, the volume is read in order. Then these are also the next leaves, as
    /// far as they follow in the same object.
    pub(super) fn read_with(&self, leaf: u32, place: LeafPlace) -> Vec<(u32, LeafPlace)> {
        let mut run = vec![(leaf, place)];
        let before = leaf.checked_sub(1);
        if !before.is_some_and(|before| self.leaves.contains_key(&before)) {
            return run;
        }
        let (start, mut end) = (place.range().start, place.range().end);
        for number in (leaf + 1..).take(READ_AHEAD - 1) {
            let Some(next) = self.places.get(&number) else {
                break;
            };
            let (same, range) = (
                (next.root, next.pack) == (place.root, place.pack),
                next.range(),
            );
            let follows = same && range.start == end && range.end - start <= READ_AHEAD_BYTES;
            if !follows || self.leaves.contains_key(&number) {
                break;
            }
            end = range.end;
            run.push((number, *next));
        }
        run
    }

    /// Whether no block of a leaf is used: without looking into a leaf that is not in memory.
    pub(super) fn is_empty(&self, leaf: u32) -> bool {
        match self.leaves.get(&leaf) {
            Some(leaf) => leaf.extents.is_empty(),
            None => !self.places.contains_key(&leaf),
        }
    }

    /// Takes a leaf that was read, unless another thread was faster.
    pub(super) fn insert(&mut self, leaf: u32, from: Option<LeafPlace>, extents: Vec<Extent>) {
        if self.leaves.contains_key(&leaf) || self.places.get(&leaf).copied() != from {
            return;
        }
        self.evict();
        let used = self.clock;
        let loaded = Leaf {
            extents,
            used,
            ..Leaf::default()
        };
        self.memory += loaded.memory();
        self.leaves.insert(leaf, loaded);
    }

    /// Frees leaves that were not used for long, until three quarters of the memory are left.
    fn evict(&mut self) {
        if self.memory <= self.limit {
            return;
        }
        let clean = |leaf: &Leaf| !leaf.dirty && !leaf.saving;
        let mut old: Vec<(u64, u32)> = self
            .leaves
            .iter()
            .filter(|(_, leaf)| clean(leaf))
            .map(|(number, leaf)| (leaf.used, *number))
            .collect();
        old.sort_unstable();
        for (_, number) in old {
            if self.memory <= self.limit / 4 * 3 {
                return;
            }
            if let Some(leaf) = self.leaves.remove(&number) {
                self.memory -= leaf.memory();
            }
        }
    }

    /// Whether dirty leaves need more than the memory for leaves.
    pub(super) fn is_full(&self) -> bool {
        let dirty = || self.leaves.values().filter(|leaf| leaf.dirty);
        self.memory > self.limit && dirty().map(Leaf::memory).sum::<usize>() > self.limit / 2
    }

    /// Where the first of the blocks is, and how many of them follow there. The leaf is loaded.
    pub(super) fn find(&self, blocks: Blocks) -> (Option<Place>, u32) {
        let Some(leaf) = self.leaves.get(&blocks.leaf) else {
            return (None, blocks.count);
        };
        let at = leaf
            .extents
            .partition_point(|extent| extent.end() <= blocks.start);
        match leaf.extents.get(at) {
            Some(extent) if u32::from(extent.start) <= blocks.start => {
                let skipped = blocks.start - u32::from(extent.start);
                let place = Place {
                    segment: extent.segment,
                    index: extent.index + skipped,
                };
                (Some(place), blocks.count.min(extent.end() - blocks.start))
            }
            Some(extent) => (
                None,
                blocks.count.min(u32::from(extent.start) - blocks.start),
            ),
            None => (None, blocks.count),
        }
    }

    /// Gives the blocks a new place, or none. The leaf is loaded, and the segment is known.
    pub(super) fn set(&mut self, blocks: Blocks, place: Option<Place>) {
        let Some(leaf) = self.leaves.get_mut(&blocks.leaf) else {
            return;
        };
        self.memory -= leaf.memory();
        leaf.dirty = true;
        let (start, end) = (blocks.start, blocks.start + blocks.count);
        let extents = &mut leaf.extents;
        let first = extents.partition_point(|extent| extent.end() <= start);
        let last = extents.partition_point(|extent| u32::from(extent.start) < end);
        let mut pieces: Vec<Extent> = Vec::with_capacity(3);
        let mut push = |from: u32, to: u32, at: Place| {
            // At most 8192 blocks.
            let count = u16::try_from(to - from).unwrap_or_default();
            let from = u16::try_from(from).unwrap_or_default();
            if count > 0 {
                pieces.push(Extent::new(from, count, at.segment, at.index));
            }
        };
        let of = |extent: &Extent| Place {
            segment: extent.segment,
            index: extent.index,
        };
        let old: Vec<Extent> = extents.get(first..last).unwrap_or_default().to_vec();
        if let Some(extent) = old.first() {
            push(
                extent.start.into(),
                start.max(extent.start.into()),
                of(extent),
            );
        }
        if let Some(place) = place {
            push(start, end, place);
        }
        if let Some(extent) = old.last() {
            let from = end.min(extent.end());
            push(
                from,
                extent.end(),
                of(extent).after(from - u32::from(extent.start)),
            );
        }
        extents.splice(first..last, pieces);
        // What continues the extent before it becomes a part of that.
        let mut at = first.saturating_sub(1);
        while let Some([before, next]) = extents.get_mut(at..=at + 1)
            && at <= first + 2
        {
            let goes_on = of(before).after(before.count.into()) == of(next);
            if before.end() == u32::from(next.start) && goes_on {
                before.count += next.count;
                extents.remove(at + 1);
            } else {
                at += 1;
            }
        }
        self.memory += leaf.memory();
        for extent in old {
            let from = start.max(extent.start.into());
            let gone = end.min(extent.end()) - from;
            if let Some(used) = self.segments.get_mut(&extent.segment) {
                used.live = used
                    .live
                    .saturating_sub(u16::try_from(gone).unwrap_or(u16::MAX));
            }
        }
        if let Some(place) = place
            && let Some(used) = self.segments.get_mut(&place.segment)
        {
            used.live = used
                .live
                .saturating_add(u16::try_from(blocks.count).unwrap_or(u16::MAX));
        }
    }

    /// The leaves that a checkpoint has to write. From now on changes of them are for the next one.
    pub(super) fn begin_saving(&mut self) -> Vec<(u32, &[Extent])> {
        let dirty = self.leaves.iter_mut().filter(|(_, leaf)| leaf.dirty);
        let mut taken: Vec<_> = dirty
            .map(|(number, leaf)| {
                (leaf.dirty, leaf.saving) = (false, true);
                (*number, leaf.extents.as_slice())
            })
            .collect();
        taken.sort_unstable_by_key(|(number, _)| *number);
        taken
    }

    /// The leaves that were written have these places now; `None` is an empty leaf.
    pub(super) fn saved(&mut self, written: &[(u32, Option<LeafPlace>)]) {
        for (number, place) in written {
            match place {
                Some(place) => drop(self.places.insert(*number, *place)),
                None => drop(self.places.remove(number)),
            }
            if let Some(leaf) = self.leaves.get_mut(number) {
                leaf.saving = false;
            }
        }
    }

    /// Makes the next checkpoint write this leaf, which is loaded.
    pub(super) fn touch(&mut self, leaf: u32) {
        if let Some(leaf) = self.leaves.get_mut(&leaf) {
            leaf.dirty = true;
        }
    }

    /// Forgets all leaves, and takes these places.
    pub(super) fn replace(&mut self, leaves: &[(u32, LeafPlace)]) {
        self.leaves.clear();
        self.memory = 0;
        self.places = leaves.iter().copied().collect();
    }

    pub(super) fn places(&self) -> &BTreeMap<u32, LeafPlace> {
        &self.places
    }
}
