//! Another size of the disk.
//!
//! A disk that shrinks loses its clusters first and its size then, so that what a cut leaves does not come back when it grows.
//! The L1 table moves where it has no room; the header changes over in one write.

use std::ops::Range;
use std::sync::atomic::Ordering;

use luksmith_formats::image::qcow2::LARGEST_L1;

use super::change::Changes;
use super::shape::length;
use super::{Place, Qcow2};
use crate::backend::{IoError, Operation};
use crate::door;

/// Where the header has the size, the encryption method, the length of the L1 table and its offset, one after the other.
const SIZE: u64 = 24;

impl Qcow2 {
    /// Changes the size of the disk; bytes that come in read as zeroes. Nobody may use the disk meanwhile.
    ///
    /// # Errors
    /// [`IoError::Unaligned`] for a size that is not in whole sectors of 512 bytes, or that cuts a cluster in which
    /// something is stored: its rest would come back when the disk grows. [`IoError::Unsupported`] for a version 2
    /// image with snapshots, which do not say how large the disk was, and where the L1 table cannot lie in a row.
    pub fn resize(&self, size: u64) -> Result<(), IoError> {
        let mut changes = self.changes(Operation::Resize)?;
        let (old, cluster) = (self.size(), self.cluster_size());
        let refused = |unit: u64| IoError::Unaligned {
            operation: Operation::Resize,
            offset: 0,
            len: size,
            unit: u32::try_from(unit).unwrap_or(u32::MAX),
        };
        if !size.is_multiple_of(512) {
            return Err(refused(512));
        }
        if self.version() == 2 && self.snapshots() != 0 {
            return Err(IoError::Unsupported(Operation::Resize));
        }
        let entries = self.shape.header.l1_entries(size);
        if entries > LARGEST_L1 / 8 {
            return Err(IoError::OutOfRange {
                operation: Operation::Resize,
                offset: 0,
                len: size,
                size: LARGEST_L1 / 8 * self.shape.l2_entries() * cluster,
            });
        }
        if size < old {
            let cut = !size.is_multiple_of(cluster)
                && self.map.place(&*self.storage, size / cluster)? != Place::Hole;
            if cut {
                return Err(refused(cluster));
            }
            let gone = size.div_ceil(cluster)..old.div_ceil(cluster);
            changes.unlink(&*self.storage, &self.map, gone)?;
        }
        changes.commit(&*self.storage, &self.map)?;
        if entries > self.map.l1_len() {
            let new = self.new_l1(&mut changes, entries)?;
            let moved = self.move_l1(&mut changes, size, entries, new);
            // Which table the header names is not known then.
            moved.inspect_err(|_| changes.fail())?;
        } else {
            door::write(&*self.storage, SIZE, &size.to_be_bytes())?;
            self.storage.flush()?;
        }
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    /// Clusters in a row for an L1 table of so many entries.
    fn new_l1(&self, changes: &mut Changes, entries: u64) -> Result<Range<u64>, IoError> {
        let (storage, wanted) = (&*self.storage, (entries * 8).div_ceil(self.cluster_size()));
        let mut short = Vec::new();
        let mut found = None;
        // A block of refcounts may lie in between once.
        for _ in 0..64 {
            let run = changes.reserve(storage, &self.map, wanted)?;
            if run.end - run.start == wanted {
                found = Some(run);
                break;
            }
            short.push(run);
        }
        for run in short {
            changes.give_back(storage, run);
        }
        found.ok_or(IoError::Unsupported(Operation::Resize))
    }

    /// Moves the L1 table into these clusters, and sets the size with it. All changes are committed.
    fn move_l1(
        &self,
        changes: &mut Changes,
        size: u64,
        entries: u64,
        new: Range<u64>,
    ) -> Result<(), IoError> {
        let (storage, cluster) = (&*self.storage, self.cluster_size());
        let wanted = new.end - new.start;
        let mut table = self.map.l1_bytes(0..self.map.l1_len());
        table.resize(length(wanted * cluster), 0);
        let offset = new.start * cluster;
        door::write(storage, offset, &table)?;
        changes.commit(storage, &self.map)?;

        let mut fields = size.to_be_bytes().to_vec();
        fields.extend(self.shape.header.crypt_method.to_be_bytes());
        fields.extend(u32::try_from(entries).unwrap_or(u32::MAX).to_be_bytes());
        fields.extend(offset.to_be_bytes());
        door::write(storage, SIZE, &fields)?;
        storage.flush()?;
        let old_len = (self.map.l1_len() * 8).div_ceil(cluster);
        let old = std::mem::replace(&mut changes.l1_offset, offset);
        changes
            .refcounts
            .fixed
            .moved(old, (offset, offset + wanted * cluster));
        self.map.grow_l1(entries);
        changes.let_go(storage, old / cluster..old / cluster + old_len)?;
        changes.commit(storage, &self.map)
    }
}
