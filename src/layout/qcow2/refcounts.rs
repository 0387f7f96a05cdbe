//! Refcounts: how often each cluster of the image is used, and which clusters are free.
//!
//! Reference: QEMU's `docs/interop/qcow2.txt`, "Host cluster management". Blocks are read when they
//! are needed, and a limited number is kept in memory. A changed block may reach the storage at any
//! time: a count is raised before anything refers to the cluster, and lowered only when it is
//! durable that nothing does. So a crash leaves a count too high at worst, which is a leak. A table
//! entry is written after its block is durable. `grow.rs` adds blocks and moves the table.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use luksmith_formats::FormatError;
use luksmith_formats::image::qcow2::table_entry;

use super::fixed::Fixed;
use super::shape::{ImageError, Shape, damaged, length};
use crate::backend::{Backend, IoError, Operation};
use crate::door;

/// The most memory for refcount blocks, in bytes. Two blocks are always kept, even if they are
/// larger.
const CACHE: u64 = 8 << 20;
/// The unit in which changed parts of a block are written, in bytes.
const PIECE: usize = 512;

/// One refcount block.
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    /// The range of bytes that is not yet written to the storage.
    pub(super) changed: Option<Range<usize>>,
    used: u64,
}

impl Block {
    /// A block of zeroes that is not yet written.
    pub(super) fn new(cluster: u64) -> Self {
        let bytes = vec![0; length(cluster)];
        Self {
            changed: Some(0..bytes.len()),
            bytes,
            used: 0,
        }
    }
}

/// The refcounts of an image.
pub(super) struct Refcounts {
    pub(super) shape: Shape,
    pub(super) fixed: Arc<Fixed>,
    /// The offset of the table, and its entries.
    pub(super) offset: u64,
    pub(super) table: Vec<u64>,
    /// Entries that are not yet written to the storage.
    pub(super) new_blocks: BTreeSet<u64>,
    pub(super) blocks: HashMap<u64, Block>,
    most_blocks: usize,
    clock: u64,
    /// The first cluster that may be free.
    pub(super) next: u64,
    /// Whether the storage failed while the table was moved. The state in memory is then useless.
    pub(super) torn: bool,
}

impl Refcounts {
    /// Reads and validates the table.
    pub(super) fn read(
        storage: &dyn Backend,
        shape: &Shape,
        fixed: Arc<Fixed>,
    ) -> Result<Self, ImageError> {
        let header = &shape.header;
        let len = u64::from(header.refcount_table_clusters) * shape.cluster;
        let bytes = door::read(storage, header.refcount_table_offset, length(len))?;
        let table: Vec<u64> = (bytes.as_chunks::<8>().0.iter())
            .map(|entry| u64::from_be_bytes(*entry))
            .collect();
        let size = storage.geometry().size;
        let mut blocks = Vec::new();
        for (index, entry) in table.iter().enumerate() {
            let (offset, reserved) = table_entry(*entry, 0);
            let inside = offset
                .checked_add(shape.cluster)
                .is_some_and(|end| end <= size);
            let good = inside && offset.is_multiple_of(shape.cluster) && !fixed.holds(offset);
            if reserved || offset != 0 && !good {
                let at = header.refcount_table_offset + index as u64 * 8;
                let cause = format!("{entry:#018x}");
                return Err(FormatError::malformed("refcount table entry", at, cause).into());
            }
            if offset != 0 {
                blocks.push(offset);
            }
        }
        blocks.sort_unstable();
        if let Some(pair) = blocks.windows(2).find(|pair| pair[0] == pair[1]) {
            let cause = format!("the block at byte {} is used twice", pair[0]);
            let at = header.refcount_table_offset;
            return Err(FormatError::malformed("refcount table", at, cause).into());
        }
        Ok(Self {
            shape: shape.clone(),
            fixed,
            offset: header.refcount_table_offset,
            table,
            new_blocks: BTreeSet::new(),
            blocks: HashMap::new(),
            most_blocks: length((CACHE / shape.cluster).max(2)),
            clock: 0,
            next: 0,
            torn: false,
        })
    }

    /// The count of a cluster. 0 if no block covers it.
    fn get(&mut self, storage: &dyn Backend, cluster: u64) -> Result<u64, IoError> {
        let order = self.shape.header.refcount_order;
        let (index, within) = self.block_of(cluster);
        let block = self.block(storage, index)?;
        Ok(block.map_or(0, |block| read_count(&block.bytes, within, order)))
    }

    /// Sets the count of a cluster. A block covers it.
    pub(super) fn set(
        &mut self,
        storage: &dyn Backend,
        cluster: u64,
        count: u64,
    ) -> Result<(), IoError> {
        let order = self.shape.header.refcount_order;
        let (index, within) = self.block_of(cluster);
        let at = cluster.saturating_mul(self.shape.cluster);
        let block = self.block(storage, index)?;
        let block = block.ok_or_else(|| damaged("a cluster without a refcount", at))?;
        let touched = write_count(&mut block.bytes, within, order, count);
        let piece = touched / PIECE * PIECE;
        let piece = piece..(piece + PIECE).min(block.bytes.len());
        block.changed = Some(match block.changed.take() {
            Some(old) => old.start.min(piece.start)..old.end.max(piece.end),
            None => piece,
        });
        Ok(())
    }

    /// Lowers the counts of some clusters by one. Those whose count becomes zero are free, and are
    /// returned.
    pub(super) fn release(
        &mut self,
        storage: &dyn Backend,
        clusters: Range<u64>,
    ) -> Result<Vec<Range<u64>>, IoError> {
        let mut free: Vec<Range<u64>> = Vec::new();
        for cluster in clusters {
            let at = cluster.saturating_mul(self.shape.cluster);
            let count = self.get(storage, cluster)?;
            let less = count
                .checked_sub(1)
                .ok_or_else(|| damaged("a used cluster with a refcount of 0", at))?;
            self.set(storage, cluster, less)?;
            if less == 0 {
                self.next = self.next.min(cluster);
                match free.last_mut() {
                    Some(last) if last.end == cluster => last.end += 1,
                    _ => free.push(cluster..cluster + 1),
                }
            }
        }
        Ok(free)
    }

    /// Allocates up to `most` consecutive free clusters, and sets their counts to one. The storage
    /// is grown to hold them.
    pub(super) fn allocate(
        &mut self,
        storage: &dyn Backend,
        most: u64,
    ) -> Result<Range<u64>, IoError> {
        let each = self.shape.refcounts_in_block();
        let order = self.shape.header.refcount_order;
        let mut start = self.next;
        let mut run = loop {
            // A new block occupies the first of the clusters that it covers.
            if self.cover(storage, start)? {
                start += 1;
            }
            let (index, within) = self.block_of(start);
            let Some(block) = self.block(storage, index)? else {
                continue;
            };
            let free = |at: &u64| read_count(&block.bytes, *at, order) == 0;
            if let Some(first) = (within..each).find(free) {
                let end = (first + 1..each.min(first.saturating_add(most)))
                    .find(|at| !free(at))
                    .unwrap_or(each.min(first.saturating_add(most)));
                break index * each + first..index * each + end;
            }
            start = (index + 1) * each;
        };
        let room = |end: u64| make_room(storage, end.saturating_mul(self.shape.cluster));
        if let Err(error) = room(run.end) {
            let full = matches!(error, IoError::NoSpace { .. } | IoError::TooLarge { .. });
            if !full || run.end - run.start == 1 {
                return Err(error);
            }
            run.end = run.start + 1;
            room(run.end)?;
        }
        for cluster in run.clone() {
            let at = cluster.saturating_mul(self.shape.cluster);
            if cluster == 0 || self.fixed.holds(at) {
                return Err(damaged("a table with a refcount of 0", at));
            }
        }
        for cluster in run.clone() {
            self.set(storage, cluster, 1)?;
        }
        self.next = run.end;
        Ok(run)
    }

    /// Writes all changed blocks. They are durable after the next flush.
    pub(super) fn write_blocks(&mut self, storage: &dyn Backend) -> Result<(), IoError> {
        let mut changed: Vec<u64> = (self.blocks.iter())
            .filter(|(_, block)| block.changed.is_some())
            .map(|(index, _)| *index)
            .collect();
        changed.sort_unstable();
        changed
            .into_iter()
            .try_for_each(|index| self.write_block(storage, index))
    }

    /// Writes the table entries of new blocks. The blocks are durable already.
    pub(super) fn write_table(&mut self, storage: &dyn Backend) -> Result<(), IoError> {
        while let Some(index) = self.new_blocks.first().copied() {
            let entry = self.table[length(index)];
            door::write(storage, self.offset + index * 8, &entry.to_be_bytes())?;
            self.new_blocks.remove(&index);
        }
        Ok(())
    }

    fn write_block(&mut self, storage: &dyn Backend, index: u64) -> Result<(), IoError> {
        let (at, _) = table_entry(self.table[length(index)], 0);
        if let Some(block) = self.blocks.get_mut(&index)
            && let Some(changed) = block.changed.clone()
        {
            let bytes = &block.bytes[changed.clone()];
            door::write(storage, at + changed.start as u64, bytes)?;
            block.changed = None;
        }
        Ok(())
    }

    fn block_of(&self, cluster: u64) -> (u64, u64) {
        let each = self.shape.refcounts_in_block();
        (cluster / each, cluster % each)
    }

    /// The block with this index, if there is one.
    fn block(&mut self, storage: &dyn Backend, index: u64) -> Result<Option<&mut Block>, IoError> {
        let entry = usize::try_from(index)
            .ok()
            .and_then(|index| self.table.get(index));
        let (at, _) = table_entry(entry.copied().unwrap_or(0), 0);
        if at == 0 {
            return Ok(None);
        }
        if !self.blocks.contains_key(&index) {
            let bytes = door::read(storage, at, length(self.shape.cluster))?;
            let changed = None;
            let used = 0;
            self.keep(
                storage,
                index,
                Block {
                    bytes,
                    changed,
                    used,
                },
            )?;
        }
        self.clock += 1;
        let clock = self.clock;
        let block = self.blocks.get_mut(&index);
        if let Some(block) = block {
            block.used = clock;
            return Ok(Some(block));
        }
        Ok(None)
    }

    /// Keeps a block in memory, and removes another one if there are too many.
    pub(super) fn keep(
        &mut self,
        storage: &dyn Backend,
        index: u64,
        block: Block,
    ) -> Result<(), IoError> {
        while self.blocks.len() >= self.most_blocks {
            let oldest = self.blocks.iter().min_by_key(|(_, block)| block.used);
            let Some(oldest) = oldest.map(|(index, _)| *index) else {
                break;
            };
            self.write_block(storage, oldest)?;
            self.blocks.remove(&oldest);
        }
        self.clock += 1;
        let used = self.clock;
        self.blocks.insert(index, Block { used, ..block });
        Ok(())
    }
}

/// Grows the storage to `end`, if it is smaller and can grow.
pub(super) fn make_room(storage: &dyn Backend, end: u64) -> Result<(), IoError> {
    let size = storage.geometry().size;
    if end <= size {
        return Ok(());
    }
    match storage.resize(end) {
        Err(IoError::Unsupported(_)) => Err(IoError::NoSpace {
            operation: Operation::Write,
            offset: size,
        }),
        outcome => outcome,
    }
}

/// Reads a count of a block. Counts of 8 bits and more are big-endian. Smaller ones start at the
/// lowest bits of a byte.
fn read_count(bytes: &[u8], index: u64, order: u32) -> u64 {
    let index = length(index);
    if order >= 3 {
        let size = 1 << (order - 3);
        let start = index * size;
        let bytes = bytes.get(start..start + size).unwrap_or_default();
        return bytes
            .iter()
            .fold(0, |count, byte| (count << 8) | u64::from(*byte));
    }
    let per_byte = 8 >> order;
    let byte = bytes.get(index / per_byte).copied().unwrap_or(0);
    let mask = (1_u64 << (1 << order)) - 1;
    (u64::from(byte) >> ((index % per_byte) << order)) & mask
}

/// Writes a count of a block, and returns the index of its first byte.
pub(super) fn write_count(bytes: &mut [u8], index: u64, order: u32, count: u64) -> usize {
    let index = length(index);
    if order >= 3 {
        let size = 1 << (order - 3);
        let start = index * size;
        if let Some(bytes) = bytes.get_mut(start..start + size) {
            bytes.copy_from_slice(&count.to_be_bytes()[8 - size..]);
        }
        return start;
    }
    let per_byte = 8 >> order;
    let shift = (index % per_byte) << order;
    let mask = ((1_u16 << (1 << order)) - 1) << shift;
    if let Some(byte) = bytes.get_mut(index / per_byte) {
        let [_, mask] = mask.to_be_bytes();
        let [.., count] = (count << shift).to_be_bytes();
        *byte = (*byte & !mask) | (count & mask);
    }
    index / per_byte
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_every_width_do_not_overlap() {
        for order in 0..=6 {
            let most = u64::MAX >> (64 - (1_u32 << order));
            let mut bytes = vec![0; 512];
            let entries = (512 * 8) >> order;
            let counts: Vec<u64> = (0..entries).map(|n| (n * 7 + 1) & most).collect();
            for (index, count) in (0..).zip(&counts) {
                write_count(&mut bytes, index, order, *count);
            }
            for (index, count) in (0..).zip(&counts) {
                assert_eq!(read_count(&bytes, index, order), *count, "{order} {index}");
            }
        }
    }

    #[test]
    fn small_counts_start_at_the_lowest_bits_and_large_ones_with_the_highest_byte() {
        let mut bytes = [0; 8];
        write_count(&mut bytes, 1, 0, 1);
        write_count(&mut bytes, 5, 1, 3);
        assert_eq!(bytes[..2], [0b10, 0b1100]);
        write_count(&mut bytes, 3, 4, 0x1234);
        assert_eq!(bytes[6..], [0x12, 0x34]);
    }
}
