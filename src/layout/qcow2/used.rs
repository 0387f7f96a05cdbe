//! Which clusters of an image hold data of the disk and of its snapshots, for a search that needs
//! no key. Every reference is checked, and the memory is bounded.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use luksmith_formats::FormatError;
use luksmith_formats::image::qcow2::{
    COPIED, DATA_FILE, EXTENDED_L2, L2Entry, LARGEST_L1, Snapshot, l2_entry, table_entry,
};

use super::shape::{ImageError, Shape};
use crate::backend::Backend;
use crate::door;

/// The clusters that one part of a [`ClusterSet`] covers.
const PART: u64 = 4096;
/// The most parts, of 512 bytes each.
const MOST_PARTS: usize = 1 << 18;
/// The most ranges of adjacent clusters.
const MOST_RANGES: usize = 1 << 22;
/// The most L2 tables.
const MOST_TABLES: usize = 1 << 22;
/// The most snapshots, as in QEMU.
const MOST_SNAPSHOTS: u32 = 65_536;
/// The most bytes of a table that are read at once.
const PIECE: u64 = 1 << 20;

/// The parts of an image that hold data, each as ranges of bytes in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsedClusters {
    /// The clusters of the disk and of its snapshots.
    pub data: Vec<Range<u64>>,
    /// The clusters with compressed data, which is not encrypted.
    pub compressed: Vec<Range<u64>>,
}

/// Walks through the tables of an image, a piece at a time.
pub struct UsedClustersWalk {
    storage: Arc<dyn Backend>,
    shape: Shape,
    size: u64,
    /// The L2 tables that are left.
    tables: Vec<u64>,
    /// The byte of the last table up to which it was read.
    within: u64,
    data: ClusterSet,
    compressed: ClusterSet,
}

impl UsedClustersWalk {
    /// Reads the L1 tables of the disk and of its snapshots.
    pub(super) fn begin(storage: Arc<dyn Backend>, shape: Shape) -> Result<Self, ImageError> {
        if shape.header.incompatible & DATA_FILE != 0 {
            return Err(ImageError::DataFile);
        }
        let size = storage.geometry().size;
        let mut walk = Self {
            storage,
            size,
            tables: Vec::new(),
            within: 0,
            data: ClusterSet::default(),
            compressed: ClusterSet::default(),
            shape,
        };
        let header = walk.shape.header.clone();
        walk.l1(header.l1_offset, header.l1_size)?;
        walk.snapshots(header.snapshots, header.snapshots_offset)?;
        // Maps may share tables.
        walk.tables.sort_unstable();
        walk.tables.dedup();
        Ok(walk)
    }

    /// Reads on. Returns whether there is more to read.
    ///
    /// # Errors
    /// [`ImageError`] if a table is malformed or too large, and what the storage reports.
    pub fn step(&mut self) -> Result<bool, ImageError> {
        let Some(table) = self.tables.last().copied() else {
            return Ok(false);
        };
        let at = table + self.within;
        let len = PIECE.min(self.shape.cluster - self.within);
        let bytes = self.read(at, len)?;
        let extended = self.shape.header.incompatible & EXTENDED_L2 != 0;
        let entry_size = if extended { 16 } else { 8 };
        for (entry, at) in bytes
            .chunks_exact(entry_size)
            .zip((at..).step_by(entry_size))
        {
            let entry = entry.first_chunk().copied().unwrap_or_default();
            self.entry(u64::from_be_bytes(entry), at)?;
        }
        self.within += len;
        if self.within == self.shape.cluster {
            self.tables.pop();
            self.within = 0;
        }
        Ok(!self.tables.is_empty())
    }

    /// What was found, after all was read.
    ///
    /// # Errors
    /// [`ImageError`] if the clusters are in too many pieces.
    pub fn finish(self) -> Result<UsedClusters, ImageError> {
        let (cluster, size) = (self.shape.cluster, self.size);
        let ranges = |set: &ClusterSet| set.ranges(cluster, size).ok_or_else(too_many);
        Ok(UsedClusters {
            data: ranges(&self.data)?,
            compressed: ranges(&self.compressed)?,
        })
    }

    fn entry(&mut self, entry: u64, at: u64) -> Result<(), ImageError> {
        let header = &self.shape.header;
        let zero_bit = header.version >= 3 && header.incompatible & EXTENDED_L2 == 0;
        let cluster = self.shape.cluster;
        let malformed = || {
            let cause = format!("{entry:#018x}, in an image of {} bytes", self.size);
            ImageError::from(FormatError::malformed("L2 entry", at, cause))
        };
        match l2_entry(entry, header.cluster_bits, zero_bit) {
            L2Entry::Unallocated => {}
            L2Entry::Reserved => return Err(malformed()),
            L2Entry::Cluster(offset) => {
                // The image may end within its last cluster.
                if !offset.is_multiple_of(cluster) || offset >= self.size {
                    return Err(malformed());
                }
                self.data.add(offset / cluster).ok_or_else(too_many)?;
            }
            L2Entry::Compressed(offset, len) => {
                if offset >= self.size {
                    return Err(malformed());
                }
                let end = offset.saturating_add(len).min(self.size);
                for number in offset / cluster..end.div_ceil(cluster) {
                    self.compressed.add(number).ok_or_else(too_many)?;
                }
            }
        }
        Ok(())
    }

    /// Adds the L2 tables of an L1 table.
    fn l1(&mut self, start: u64, entries: u32) -> Result<(), ImageError> {
        if entries == 0 {
            return Ok(());
        }
        let len = u64::from(entries) * 8;
        let malformed = |cause| ImageError::from(FormatError::malformed("L1 table", start, cause));
        if len > LARGEST_L1 || start.checked_add(len).is_none_or(|end| end > self.size) {
            let cause = format!("{len} bytes in an image of {}", self.size);
            return Err(malformed(cause));
        }
        let (mut at, end) = (start, start + len);
        while at < end {
            let piece = PIECE.min(end - at);
            let bytes = self.read(at, piece)?;
            at += piece;
            for entry in bytes.as_chunks::<8>().0 {
                let entry = u64::from_be_bytes(*entry);
                let (offset, reserved) = table_entry(entry, COPIED);
                let end = offset.saturating_add(self.shape.cluster);
                let fits = offset.is_multiple_of(self.shape.cluster) && end <= self.size;
                if reserved || !fits {
                    return Err(malformed(format!("the entry {entry:#018x}")));
                }
                if offset != 0 {
                    self.tables.push(offset);
                }
            }
            if self.tables.len() > MOST_TABLES {
                return Err(too_many());
            }
        }
        Ok(())
    }

    fn snapshots(&mut self, count: u32, start: u64) -> Result<(), ImageError> {
        if count > MOST_SNAPSHOTS {
            let cause = format!("{count}, the most is {MOST_SNAPSHOTS}");
            return Err(FormatError::over_limit("nb_snapshots", 60, cause).into());
        }
        let mut at = start;
        for _ in 0..count {
            let end = at.saturating_add(Snapshot::LENGTH as u64);
            let entry = match end <= self.size {
                true => Snapshot::parse(&self.read(at, Snapshot::LENGTH as u64)?),
                false => None,
            };
            let entry = entry.ok_or_else(|| {
                let cause = "reaches beyond the end of the image";
                FormatError::malformed("snapshot", at, cause)
            })?;
            self.l1(entry.l1_offset, entry.l1_size)?;
            let next = at.saturating_add(entry.length());
            at = next.checked_next_multiple_of(8).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, ImageError> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        Ok(door::read(&*self.storage, at, len)?)
    }
}

fn too_many() -> ImageError {
    let cause = "the clusters in use are in too many pieces";
    FormatError::over_limit("L2 tables", 0, cause).into()
}

/// A set of numbers of clusters, most of which are adjacent.
#[derive(Debug, Default)]
struct ClusterSet {
    parts: BTreeMap<u64, Box<[u64; 64]>>,
}

impl ClusterSet {
    /// `None` if there are too many parts.
    fn add(&mut self, number: u64) -> Option<()> {
        let many = self.parts.len() >= MOST_PARTS;
        let part = match self.parts.entry(number / PART) {
            std::collections::btree_map::Entry::Vacant(_) if many => return None,
            entry => entry.or_insert_with(|| Box::new([0; 64])),
        };
        let within = number % PART;
        let word = part.get_mut(usize::try_from(within / 64).ok()?)?;
        *word |= 1 << (within % 64);
        Some(())
    }

    /// The bytes of the clusters, up to the end of the image. `None` if there are too many ranges.
    fn ranges(&self, cluster: u64, size: u64) -> Option<Vec<Range<u64>>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let words = self.parts.iter().flat_map(|(part, words)| {
            let first = part * PART;
            words.iter().zip((first..).step_by(64))
        });
        for (word, first) in words.filter(|(word, _)| **word != 0) {
            for bit in (0..64).filter(|bit| word & (1 << bit) != 0) {
                let start = (first + bit) * cluster;
                let end = (start + cluster).min(size);
                let many = ranges.len() == MOST_RANGES;
                match ranges.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ if many => return None,
                    _ => ranges.push(start..end),
                }
            }
        }
        Some(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_clusters_join_over_the_parts_of_a_set() {
        let mut set = ClusterSet::default();
        for number in [0, 1, 63, 64, 65, 4095, 4096, 9000, 8999, 9000] {
            set.add(number).unwrap();
        }
        let ranges = set.ranges(512, 9000 * 512 + 100).unwrap();
        let expected = [0..2, 63..66, 4095..4097]
            .map(|numbers: Range<u64>| numbers.start * 512..numbers.end * 512);
        assert_eq!(ranges[..3], expected);
        assert_eq!(ranges[3], 8999 * 512..9000 * 512 + 100);
        assert_eq!(ranges.len(), 4);
        for part in 0..MOST_PARTS as u64 - 3 {
            set.add((part + 10) * PART).unwrap();
        }
        assert_eq!(set.add(1 << 50), None);
        assert_eq!(set.add(2), Some(()));
    }
}
