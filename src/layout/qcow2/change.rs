//! Changes of the mapping, and how they reach the storage.
//!
//! Whatever is cut off at whatever write, no cluster is used twice, none is referred to before its bytes are there, and nothing
//! but a leak is left for `qemu-img check`. A change is made in memory first, and [`Changes::commit`] brings all of them to the
//! storage in this order:
//!
//! 1. What is new lies on the storage already, in clusters that nothing durable refers to: data, whole L2 tables. Then the
//!    blocks with the raised refcounts. *Flush.*
//! 2. Where there are new refcount blocks, the entries of the refcount table for them. *Flush.*
//! 3. The pointers: changed L2 entries and L1 entries, each on its own as good as before or as after. *Flush.*
//! 4. What these pointers referred to before is counted once less, and only from now on free to be used again.
//!
//! Once a flush has failed nobody knows what is durable, so nothing is committed any more. A write that failed, for want of space
//! perhaps, is made again by the next commit.

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

/// So many changed slices, or dropped ranges, are committed without being asked to.
const MOST_CHANGES: usize = 1024;

/// What has changed in memory alone.
pub(super) struct Changes {
    pub(super) refcounts: Refcounts,
    pub(super) l1_offset: u64,
    slices: BTreeMap<u64, Arc<Slice>>,
    l1: BTreeSet<u64>,
    /// Clusters that are referred to once less when this is committed.
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

    /// Up to `most` clusters in a row that nobody uses: who asks fills them, and links or gives them back.
    pub(super) fn reserve(
        &mut self,
        storage: &dyn Backend,
        map: &Map,
        most: u64,
    ) -> Result<Range<u64>, IoError> {
        self.usable()?;
        match self.refcounts.allocate(storage, most) {
            // What was dropped is free after a commit.
            Err(IoError::NoSpace { .. }) if !self.dropped.is_empty() => {
                self.commit(storage, map)?;
                self.refcounts.allocate(storage, most)
            }
            outcome => outcome,
        }
    }

    /// Gives back what was reserved and not linked.
    pub(super) fn give_back(&mut self, storage: &dyn Backend, clusters: Range<u64>) {
        if self.refcounts.release(storage, clusters).is_err() {
            self.failed = true;
        }
    }

    /// From now on the guest's clusters from `first` on are these. Either all of them are, or it is an error.
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

    /// The guest's clusters read as zeroes from now on, and what they were is given up.
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
            // Each of them counts every compressed cluster that has a part in it.
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

    /// One use less of each of these, once it is durable that there is.
    fn drop_later(&mut self, clusters: Range<u64>) {
        match self.dropped.last_mut() {
            Some(last) if last.end == clusters.start => last.end = clusters.end,
            _ => self.dropped.push(clusters),
        }
    }

    /// The entry for a cluster of the guest in an L2 table that is this disk's alone: a new one, or a copy, where there is none.
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
            // Who flushes next hears of it, if it fails again.
            let _ = self.commit(storage, map);
        }
    }

    /// Brings all changes to the storage, in the order that the module tells. They are durable when this returns.
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

    /// Counts clusters once less that nothing durable refers to any more, and gives the storage what is free then.
    pub(super) fn let_go(
        &mut self,
        storage: &dyn Backend,
        clusters: Range<u64>,
    ) -> Result<(), IoError> {
        let cluster = self.refcounts.shape.cluster;
        for free in self.refcounts.release(storage, clusters)? {
            // A storage that cannot give it up keeps it.
            let _ = storage.discard(free.start * cluster..free.end * cluster);
        }
        Ok(())
    }

    /// Nothing is committed from now on.
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
