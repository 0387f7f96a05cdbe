//! Changes the size of the disk.
//!
//! A disk that shrinks gives up its clusters before its size changes. So after a crash, old data
//! does not reappear when the disk grows again. If the L1 table has no room to grow, it moves, and
//! one write of the header switches to the new table.

use std::ops::Range;
use std::sync::atomic::Ordering;

use luksmith_formats::image::qcow2::LARGEST_L1;

use super::Qcow2;
use super::change::Changes;
use super::map::Place;
use super::shape::length;
use crate::backend::{IoError, Operation};
use crate::door;

/// The offset in the header of the size, the encryption method, and the length and offset of the L1
/// table, which are consecutive.
const SIZE: u64 = 24;

impl Qcow2 {
    /// Changes the size of the disk. New bytes read as zeroes. The disk may not be used meanwhile.
    ///
    /// # Errors
    /// Returns [`IoError::Unaligned`] if the size is not a whole number of 512-byte sectors, or if
    /// it ends within a stored cluster, the rest of which would reappear when the disk grows again.
    /// Returns [`IoError::Unsupported`] for a version 2 image with snapshots, which do not record
    /// the size of the disk, and if there is no place for a consecutive L1 table.
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
        if self.shape.header.version == 2 && self.shape.header.snapshots != 0 {
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
            // It is unknown then which table the header names.
            moved.inspect_err(|_| changes.fail())?;
        } else {
            door::write(&*self.storage, SIZE, &size.to_be_bytes())?;
            self.storage.flush()?;
        }
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    /// Reserves consecutive clusters for an L1 table with this number of entries.
    fn new_l1(&self, changes: &mut Changes, entries: u64) -> Result<Range<u64>, IoError> {
        let (storage, wanted) = (&*self.storage, (entries * 8).div_ceil(self.cluster_size()));
        let mut short = Vec::new();
        let mut found = None;
        // A new refcount block may be in between once.
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

    /// Moves the L1 table to these clusters, and changes the size with it. All changes are
    /// committed.
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
