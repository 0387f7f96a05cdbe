//! The map of the guest's clusters: the complete L1 table, and a cache of limited size of the L2
//! tables.
//!
//! Reference: QEMU's `docs/interop/qcow2.txt`, "Cluster mapping". A lookup holds a shared lock only
//! while it searches the cache. After a miss it reads one slice of a table. Entries are validated
//! when they are used, since the image may be hostile.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use luksmith_formats::FormatError;
use luksmith_formats::image::qcow2::{COPIED, L2Entry, ZERO, l2_entry, table_entry};

use super::fixed::Fixed;
use super::shape::{ImageError, Shape, damaged, length};
use crate::backend::{Backend, IoError};
use crate::door;

/// The most memory for L2 tables, in bytes. With clusters of 64 KiB that covers 256 GiB of the
/// disk.
const CACHE: usize = 32 << 20;
/// The most bytes of an L2 table that are read at once.
const SLICE: u64 = 4096;
/// The approximate memory that a slice needs besides its entries, in bytes.
const OVERHEAD: usize = 128;

/// Where a cluster of the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The cluster is not stored, and reads as zeroes.
    Hole,
    /// At this offset, used only by the disk.
    Own(u64),
    /// At this offset, also used by a snapshot.
    Shared(u64),
    /// Compressed, and so not encrypted.
    Compressed(Compressed),
}

/// The place of the data of a compressed cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compressed {
    /// The offset of the first byte.
    pub(crate) at: u64,
    /// The maximum length in bytes.
    pub(super) len: u64,
}

impl Compressed {
    /// The clusters of the image that contain parts of it.
    pub(super) fn clusters(self, cluster: u64) -> Range<u64> {
        self.at / cluster..(self.at + self.len).div_ceil(cluster)
    }
}

/// A part of an L2 table.
pub(super) struct Slice {
    entries: Box<[AtomicU64]>,
    /// Whether it was used since the last sweep of the cache.
    used: AtomicBool,
}

impl Slice {
    fn of(bytes: &[u8]) -> Self {
        let entries = bytes.as_chunks::<8>().0.iter();
        Self {
            entries: entries
                .map(|entry| AtomicU64::new(u64::from_be_bytes(*entry)))
                .collect(),
            used: AtomicBool::new(true),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let entries = self.entries.iter();
        entries
            .flat_map(|entry| entry.load(Ordering::Acquire).to_be_bytes())
            .collect()
    }

    pub(super) fn get(&self, index: usize) -> u64 {
        self.entries[index].load(Ordering::Acquire)
    }

    pub(super) fn set(&self, index: usize, entry: u64) {
        self.entries[index].store(entry, Ordering::Release);
    }
}

/// The L1 and L2 tables of the disk.
pub(super) struct Map {
    l1: RwLock<Vec<u64>>,
    slices: RwLock<HashMap<u64, Arc<Slice>>>,
    /// Held while a slice is read, so that no slice is in the cache twice.
    loading: Mutex<()>,
    shape: Shape,
    /// The parts that no data may overlap.
    fixed: Arc<Fixed>,
    slice_bytes: u64,
    most: usize,
}

impl Map {
    /// Reads and validates the L1 table.
    pub(super) fn read(
        storage: &dyn Backend,
        shape: &Shape,
        fixed: Arc<Fixed>,
    ) -> Result<Self, ImageError> {
        let len = shape.header.l1_size as usize * 8;
        let bytes = match len {
            0 => Vec::new(),
            _ => door::read(storage, shape.header.l1_offset, len)?,
        };
        let l1: Vec<u64> = (bytes.as_chunks::<8>().0.iter())
            .map(|entry| u64::from_be_bytes(*entry))
            .collect();
        let size = storage.geometry().size;
        let mut tables = Vec::new();
        for (index, entry) in l1.iter().enumerate() {
            let (offset, reserved) = table_entry(*entry, COPIED);
            if reserved || !fits(offset, shape.cluster, size) || fixed.holds(offset) {
                let at = shape.header.l1_offset + index as u64 * 8;
                let cause = format!("{entry:#018x}");
                return Err(FormatError::malformed("L1 entry", at, cause).into());
            }
            if offset != 0 {
                tables.push(offset);
            }
        }
        tables.sort_unstable();
        if let Some(pair) = tables.windows(2).find(|pair| pair[0] == pair[1]) {
            let cause = format!("the L2 table at byte {} is used twice", pair[0]);
            let error = FormatError::malformed("L1 table", shape.header.l1_offset, cause);
            return Err(error.into());
        }
        let slice_bytes = shape.cluster.min(SLICE);
        let each = usize::try_from(slice_bytes).unwrap_or(usize::MAX) + OVERHEAD;
        Ok(Self {
            l1: RwLock::new(l1),
            slices: RwLock::default(),
            loading: Mutex::default(),
            shape: shape.clone(),
            fixed,
            slice_bytes,
            most: CACHE / each,
        })
    }

    /// The size of a cluster in bytes.
    pub(super) fn cluster(&self) -> u64 {
        self.shape.cluster
    }

    /// The place of a cluster of the guest, by its number.
    pub(super) fn place(&self, storage: &dyn Backend, cluster: u64) -> Result<Place, IoError> {
        let Some((slice, index)) = self.slice(storage, cluster)? else {
            return Ok(Place::Hole);
        };
        self.judge(slice.get(index), storage.geometry().size)
    }

    /// The place that an L2 entry names, if the entry is valid.
    fn judge(&self, entry: u64, size: u64) -> Result<Place, IoError> {
        let zero_bit = self.shape.has_zero_bit();
        match l2_entry(entry, self.shape.header.cluster_bits, zero_bit) {
            L2Entry::Unallocated => Ok(Place::Hole),
            L2Entry::Compressed(at, len) => {
                let compressed = Compressed { at, len };
                let mut clusters = compressed.clusters(self.shape.cluster);
                // The image may end within the last of its sectors.
                let inside = clusters.start != 0 && at < size;
                if !inside || clusters.any(|n| self.fixed.holds(n * self.shape.cluster)) {
                    return Err(damaged(
                        "a compressed cluster outside of the image or on its tables",
                        at,
                    ));
                }
                Ok(Place::Compressed(compressed))
            }
            L2Entry::Reserved => Err(damaged("an L2 entry with reserved bits", entry)),
            L2Entry::Cluster(at) => {
                if !fits(at, self.shape.cluster, size) || self.fixed.holds(at) {
                    return Err(damaged(
                        "a cluster outside of the image or on its tables",
                        at,
                    ));
                }
                if zero_bit && entry & ZERO != 0 {
                    Ok(Place::Hole)
                } else if entry & COPIED != 0 {
                    Ok(Place::Own(at))
                } else {
                    Ok(Place::Shared(at))
                }
            }
        }
    }

    /// The slice with the entry of a cluster, and the index of the entry there. `None` if the
    /// cluster has no L2 table.
    pub(super) fn slice(
        &self,
        storage: &dyn Backend,
        cluster: u64,
    ) -> Result<Option<(Arc<Slice>, usize)>, IoError> {
        let per_slice = self.slice_bytes / 8;
        let (key, index) = (cluster / per_slice, length(cluster % per_slice));
        if let Some(slice) = self.cached(key) {
            return Ok(Some((slice, index)));
        }
        if self.table(cluster).is_none() {
            return Ok(None);
        }
        let _one = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slice) = self.cached(key) {
            return Ok(Some((slice, index)));
        }
        // Look it up again, since the table may have moved.
        let Some(at) = self.slice_offset(key) else {
            return Ok(None);
        };
        let slice = Arc::new(Slice::of(&door::read(
            storage,
            at,
            length(self.slice_bytes),
        )?));
        self.keep(key, slice.clone());
        Ok(Some((slice, index)))
    }

    /// The key of the slice of a cluster.
    pub(super) fn key(&self, cluster: u64) -> u64 {
        cluster / (self.slice_bytes / 8)
    }

    /// The present offset of a slice.
    pub(super) fn slice_offset(&self, key: u64) -> Option<u64> {
        let cluster = key * (self.slice_bytes / 8);
        let in_table = cluster % self.shape.l2_entries() * 8;
        self.table(cluster).map(|(table, _)| table + in_table)
    }

    /// The L2 table of a cluster, and whether only the disk uses it.
    pub(super) fn table(&self, cluster: u64) -> Option<(u64, bool)> {
        let entry = self.l1_entry(cluster / self.shape.l2_entries())?;
        let (offset, _) = table_entry(entry, COPIED);
        (offset != 0).then_some((offset, entry & COPIED != 0))
    }

    /// An L1 entry. `None` past the end of the table.
    pub(super) fn l1_entry(&self, index: u64) -> Option<u64> {
        let l1 = self.l1.read().unwrap_or_else(PoisonError::into_inner);
        l1.get(usize::try_from(index).ok()?).copied()
    }

    /// If `cluster` has no L2 table, the first cluster after it that may have one.
    pub(super) fn without_table(&self, cluster: u64) -> Option<u64> {
        let each = self.shape.l2_entries();
        (self.table(cluster).is_none()).then(|| (cluster / each + 1).saturating_mul(each))
    }

    /// Changes an L1 entry. When this returns, no thread reads from the table that it named before.
    pub(super) fn set_l1(&self, index: u64, entry: u64) {
        let _nobody = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut l1 = self.l1.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = l1.get_mut(length(index)) {
            *place = entry;
        }
    }

    /// Makes room for this number of L1 entries.
    pub(super) fn grow_l1(&self, entries: u64) {
        let mut l1 = self.l1.write().unwrap_or_else(PoisonError::into_inner);
        let entries = length(entries).max(l1.len());
        l1.resize(entries, 0);
    }

    /// The number of L1 entries.
    pub(super) fn l1_len(&self) -> u64 {
        let l1 = self.l1.read().unwrap_or_else(PoisonError::into_inner);
        l1.len() as u64
    }

    /// The bytes of a range of L1 entries.
    pub(super) fn l1_bytes(&self, entries: std::ops::Range<u64>) -> Vec<u8> {
        let l1 = self.l1.read().unwrap_or_else(PoisonError::into_inner);
        let entries = length(entries.start)..length(entries.end).min(l1.len());
        let entries = l1.get(entries).unwrap_or_default();
        entries
            .iter()
            .flat_map(|entry| entry.to_be_bytes())
            .collect()
    }

    fn cached(&self, key: u64) -> Option<Arc<Slice>> {
        let slices = self.slices.read().unwrap_or_else(PoisonError::into_inner);
        let slice = slices.get(&key)?;
        if !slice.used.load(Ordering::Relaxed) {
            slice.used.store(true, Ordering::Relaxed);
        }
        Some(slice.clone())
    }

    /// Adds a slice to the cache. Slices that have other owners stay in the cache: they are in use,
    /// or have changes that are not yet written.
    fn keep(&self, key: u64, slice: Arc<Slice>) {
        let mut slices = self.slices.write().unwrap_or_else(PoisonError::into_inner);
        // A sweep removes slices without a mark of use, and clears the marks of the others. If it
        // removes too few, a second sweep removes some of those.
        for _ in 0..2 {
            if slices.len() < self.most {
                break;
            }
            let mut excess = self.most / 8 + 1;
            slices.retain(|_, slice| {
                let goes = excess > 0
                    && Arc::strong_count(slice) == 1
                    && !slice.used.swap(false, Ordering::Relaxed);
                excess -= usize::from(goes);
                !goes
            });
        }
        slices.insert(key, slice);
    }
}

/// Whether there is a whole, aligned cluster at `offset` inside of the storage. 0 means no cluster.
fn fits(offset: u64, cluster: u64, size: u64) -> bool {
    offset.is_multiple_of(cluster)
        && offset
            .checked_add(cluster)
            .is_some_and(|end| offset == 0 || end <= size)
}
