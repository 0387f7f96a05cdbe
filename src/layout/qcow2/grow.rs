//! Makes room for more refcounts: adds a block, or moves the table to a larger place.
//!
//! A new block occupies the first of the clusters that it covers, and counts itself. So a block
//! needs no count in another block. Its table entry is written after the block is durable. A larger
//! table is placed after everything that the old table could cover, together with the blocks that
//! count it. When all of that is durable, one write of the header switches to the new table, and
//! the old table is free.

use super::refcounts::{Block, Refcounts, make_room};
use super::shape::{damaged, length};
use crate::backend::{Backend, IoError, Operation};
use crate::door;

use luksmith_formats::image::qcow2::LARGEST_REFCOUNT_TABLE;

/// The offset of the refcount table's fields in the header: its offset, then its length in
/// clusters.
const TABLE_FIELDS: u64 = 48;

impl Refcounts {
    /// Ensures that a block covers this cluster. Returns whether the cluster itself became the
    /// block.
    pub(super) fn cover(&mut self, storage: &dyn Backend, cluster: u64) -> Result<bool, IoError> {
        let each = self.shape.refcounts_in_block();
        let index = cluster / each;
        if index >= self.table.len() as u64 {
            self.grow_table(storage)?;
        }
        let place = length(index);
        if self.table.get(place).is_none_or(|entry| *entry != 0) {
            return Ok(false);
        }
        let first = index * each;
        let at = first.saturating_mul(self.shape.cluster);
        if first == 0 || self.fixed.holds(at) {
            return Err(damaged("tables without refcounts", at));
        }
        make_room(storage, at.saturating_add(self.shape.cluster))?;
        self.table[place] = at;
        self.new_blocks.insert(index);
        self.keep(storage, index, Block::new(self.shape.cluster))?;
        self.set(storage, first, 1)?;
        Ok(first == cluster)
    }

    /// Moves the table to a place where it is larger by half.
    fn grow_table(&mut self, storage: &dyn Backend) -> Result<(), IoError> {
        let cluster = self.shape.cluster;
        let each = self.shape.refcounts_in_block();
        let old_entries = self.table.len() as u64;
        let first = old_entries * each;
        let entries_wanted = (old_entries + old_entries / 2 + 2).next_multiple_of(cluster / 8);
        let clusters = entries_wanted * 8 / cluster;
        if entries_wanted * 8 > LARGEST_REFCOUNT_TABLE {
            return Err(IoError::NoSpace {
                operation: Operation::Write,
                offset: first.saturating_mul(cluster),
            });
        }
        // Enough blocks to cover themselves and the table after them.
        let mut blocks = 1;
        while blocks + clusters > blocks * each {
            blocks += 1;
        }
        let end = first + blocks + clusters;
        make_room(storage, end.saturating_mul(cluster))?;
        let table_at = (first + blocks) * cluster;

        // The new table and its blocks have to be durable before the header names the table.
        self.write_blocks(storage)?;
        let mut table = self.table.clone();
        table.resize(length(entries_wanted), 0);
        for block in 0..blocks {
            table[length(old_entries + block)] = (first + block) * cluster;
        }
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        door::write(storage, table_at, &bytes)?;
        self.torn = true;
        let (old_offset, old_table) = (self.offset, std::mem::replace(&mut self.table, table));
        for block in 0..blocks {
            self.keep(storage, old_entries + block, Block::new(cluster))?;
        }
        for used in first..end {
            self.set(storage, used, 1)?;
        }
        self.write_blocks(storage)?;
        storage.flush()?;

        let mut fields = table_at.to_be_bytes().to_vec();
        fields.extend(u32::try_from(clusters).unwrap_or(u32::MAX).to_be_bytes());
        door::write(storage, TABLE_FIELDS, &fields)?;
        storage.flush()?;
        self.offset = table_at;
        self.new_blocks.clear();
        self.torn = false;
        self.fixed
            .moved(old_offset, (table_at, table_at + clusters * cluster));
        let old = old_offset / cluster;
        self.release(
            storage,
            old..old + (old_table.len() as u64 * 8).div_ceil(cluster),
        )?;
        Ok(())
    }
}
