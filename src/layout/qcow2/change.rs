//! Changes of the mapping, and the order in which they reach the storage.
//!
//! After a crash at any write, no cluster is used twice, no table refers to a cluster before its
//! data is there, and `qemu-img check` finds only leaks. A change is made in memory first.
//! [`Changes::commit`] brings all changes to the storage in this order:
//!
//! 1. New data and new L2 tables are on the storage already, in clusters that nothing durable
//!    refers to. Write the blocks with the raised refcounts. *Flush.*
//! 2. If there are new refcount blocks, write their entries of the refcount table. *Flush.*
//! 3. Write the pointers: changed L2 entries and L1 entries. Each of them is valid with its old and
//!    with its new value. *Flush.*
//! 4. Lower the counts of the clusters that these pointers referred to before. Only now they can be
//!    used again.
//!
//! After a flush has failed it is unknown what is durable, so nothing is committed any more. A
//! write that failed, for example for lack of space, is repeated by the next commit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use luksmith_formats::image::qcow2::{COPIED, L2Entry, l2_entry};

use super::fixed::Fixed;
use super::map::{Compressed, Map, Slice};
use super::refcounts::Refcounts;
use super::shape::{ImageError, Shape, damaged, length};
use crate::backend::{Backend, IoError, Operation};
use crate::door;

/// The number of changed slices, or of dropped ranges, after which changes are committed without a
/// flush.
const MOST_CHANGES: usize = 1024;

/// The changes that are only in memory.
pub(super) struct Changes {
    pub(super) refcounts: Refcounts,
    pub(super) l1_offset: u64,
    slices: BTreeMap<u64, Arc<Slice>>,
    l1: BTreeSet<u64>,
    /// Clusters whose counts are lowered after the next commit.
    dropped: Vec<Range<u64>>,
    failed: bool,
}

impl Changes {
    pub(super) fn none(
        storage: &dyn Backend,
        shape: &Shape,
        fixed: Arc<Fixed>,
    ) -> Result<Self, ImageError> {
        Ok(Self {
            refcounts: Refcounts::read(storage, shape, fixed)?,
            l1_offset: shape.header.l1_offset,
            slices: BTreeMap::new(),
            l1: BTreeSet::new(),
            dropped: Vec::new(),
            failed: false,
        })
    }

    /// Reserves up to `most` consecutive free clusters. The caller fills them, and links them or
    /// gives them back.
    pub(super) fn reserve(
        &mut self,
        storage: &dyn Backend,
        map: &Map,
        most: u64,
    ) -> Result<Range<u64>, IoError> {
        self.usable()?;
        match self.refcounts.allocate(storage, most) {
            // A commit frees the dropped clusters.
            Err(IoError::NoSpace { .. } | IoError::TooLarge { .. }) if !self.dropped.is_empty() => {
                self.commit(storage, map)?;
                self.refcounts.allocate(storage, most)
            }
            outcome => outcome,
        }
    }

    /// Frees clusters that were reserved and not linked.
    pub(super) fn give_back(&mut self, storage: &dyn Backend, clusters: Range<u64>) {
        if self.refcounts.release(storage, clusters).is_err() {
            self.failed = true;
        }
    }

    /// Makes `clusters` the guest's clusters from `first` on. After an error, none of them is.
    pub(super) fn link(
        &mut self,
        storage: &dyn Backend,
        map: &Map,
        first: u64,
        clusters: Range<u64>,
    ) -> Result<(), IoError> {
        self.usable()?;
        let cluster = self.refcounts.shape.cluster;
        let mut places = Vec::with_capacity(length(clusters.end - clusters.start));
        for (guest, host) in (first..).zip(clusters) {
            let (slice, index) = self.changeable(storage, map, guest)?;
            places.push((map.key(guest), slice, index, (host * cluster) | COPIED));
        }
        for (key, slice, index, entry) in places {
            self.replace(key, slice, index, entry);
        }
        self.commit_if_many(storage, map);
        Ok(())
    }

    /// Makes clusters of the guest read as zeroes, and gives up the clusters that they used.
    pub(super) fn unlink(
        &mut self,
        storage: &dyn Backend,
        map: &Map,
        clusters: Range<u64>,
    ) -> Result<(), IoError> {
        self.usable()?;
        let mut at = clusters.start;
        while at < clusters.end {
            if let Some(end) = map.without_table(at) {
                at = end;
                continue;
            }
            map.place(storage, at)?;
            if map
                .slice(storage, at)?
                .is_some_and(|(slice, index)| slice.get(index) != 0)
            {
                let (slice, index) = self.changeable(storage, map, at)?;
                self.replace(map.key(at), slice, index, 0);
                self.commit_if_many(storage, map);
            }
            at += 1;
        }
        Ok(())
    }

    fn replace(&mut self, key: u64, slice: Arc<Slice>, index: usize, entry: u64) {
        let shape = &self.refcounts.shape;
        let old = l2_entry(
            slice.get(index),
            shape.header.cluster_bits,
            shape.has_zero_bit(),
        );
        slice.set(index, entry);
        self.slices.insert(key, slice);
        match old {
            L2Entry::Cluster(at) => self.drop_cluster_later(at),
            // A cluster of the image is counted once for each compressed cluster that has a part in
            // it.
            L2Entry::Compressed(at, len) => {
                let compressed = Compressed { at, len };
                self.drop_later(compressed.clusters(self.refcounts.shape.cluster));
            }
            L2Entry::Unallocated | L2Entry::Reserved => {}
        }
    }

    fn drop_cluster_later(&mut self, offset: u64) {
        let cluster = offset / self.refcounts.shape.cluster;
        self.drop_later(cluster..cluster + 1);
    }

    /// Lowers the counts of these clusters, after the next commit.
    fn drop_later(&mut self, clusters: Range<u64>) {
        match self.dropped.last_mut() {
            Some(last) if last.end == clusters.start => last.end = clusters.end,
            _ => self.dropped.push(clusters),
        }
    }

    /// The entry of a guest's cluster, in an L2 table that only the disk uses. If there is no such
    /// table, it makes a new one, or a copy of the shared one.
    fn changeable(
        &mut self,
        storage: &dyn Backend,
        map: &Map,
        guest: u64,
    ) -> Result<(Arc<Slice>, usize), IoError> {
        let old = map.table(guest);
        if !matches!(old, Some((_, true))) {
            let cluster = self.refcounts.shape.cluster;
            let content = match old {
                Some((offset, _)) => door::read(storage, offset, length(cluster))?,
                None => vec![0; length(cluster)],
            };
            let new = self.reserve(storage, map, 1)?;
            let offset = new.start * cluster;
            if let Err(error) = door::write(storage, offset, &content) {
                self.give_back(storage, new);
                return Err(error);
            }
            let index = guest / self.refcounts.shape.l2_entries();
            map.set_l1(index, offset | COPIED);
            self.l1.insert(index);
            if let Some((offset, _)) = old {
                self.drop_cluster_later(offset);
            }
        }
        let found = map.slice(storage, guest)?;
        found.ok_or_else(|| damaged("an L1 table that is too small", self.l1_offset))
    }

    fn commit_if_many(&mut self, storage: &dyn Backend, map: &Map) {
        if self.slices.len() + self.l1.len() >= MOST_CHANGES || self.dropped.len() >= MOST_CHANGES {
            // If it fails again, the next flush reports it.
            let _ = self.commit(storage, map);
        }
    }

    /// Writes all changes to the storage, in the order that the module describes. They are durable
    /// when this returns.
    pub(super) fn commit(&mut self, storage: &dyn Backend, map: &Map) -> Result<(), IoError> {
        self.usable()?;
        self.refcounts.write_blocks(storage)?;
        self.barrier(storage)?;
        if !self.refcounts.new_blocks.is_empty() {
            self.refcounts.write_table(storage)?;
            self.barrier(storage)?;
        }
        if self.slices.is_empty() && self.l1.is_empty() {
            return Ok(());
        }
        for (key, slice) in &self.slices {
            if let Some(offset) = map.slice_offset(*key) {
                door::write(storage, offset, &slice.to_bytes())?;
            }
        }
        for index in &self.l1 {
            let entry = map.l1_bytes(*index..*index + 1);
            door::write(storage, self.l1_offset + index * 8, &entry)?;
        }
        self.barrier(storage)?;
        self.slices.clear();
        self.l1.clear();
        for clusters in std::mem::take(&mut self.dropped) {
            self.let_go(storage, clusters)?;
        }
        self.refcounts.write_blocks(storage)
    }

    fn barrier(&mut self, storage: &dyn Backend) -> Result<(), IoError> {
        storage.flush().inspect_err(|_| self.failed = true)
    }

    /// Lowers the counts of clusters to which nothing durable refers any more, and discards those
    /// that become free.
    pub(super) fn let_go(
        &mut self,
        storage: &dyn Backend,
        clusters: Range<u64>,
    ) -> Result<(), IoError> {
        let cluster = self.refcounts.shape.cluster;
        for free in self.refcounts.release(storage, clusters)? {
            // A storage that cannot discard keeps the bytes.
            let _ = storage.discard(free.start * cluster..free.end * cluster);
        }
        Ok(())
    }

    /// Marks the state as failed, so that nothing is committed any more.
    pub(super) fn fail(&mut self) {
        self.failed = true;
    }

    fn usable(&self) -> Result<(), IoError> {
        if self.failed || self.refcounts.torn {
            return Err(IoError::Failed {
                operation: Operation::Flush,
                offset: 0,
                source: std::io::Error::other("an earlier change of the image's tables has failed"),
            });
        }
        Ok(())
    }
}
