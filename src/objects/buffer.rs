//! The segment that is being filled.

use luksmith_formats::objects::segment::{self, Header, Record, Sum};
use luksmith_formats::objects::{BLOCK, Position, Uuid};

/// The size of a block in memory.
pub(super) const BLOCK_LEN: usize = 4096;

/// The same as a number of 32 bits.
pub(super) const BLOCK_BYTES: u32 = 4096;
const _: () = assert!(BLOCK_LEN as u64 == BLOCK && BLOCK_BYTES as u64 == BLOCK);

/// Records without checksums: those of all blocks are together.
enum Change {
    Data { block: u64, count: u32, index: u32 },
    Other(Record),
}

/// A segment that is being filled.
pub(super) struct Buffer {
    changes: Vec<Change>,
    sums: Vec<Sum>,
    data: Vec<u8>,
}

/// A segment that does not change any more.
pub(super) struct Sealed {
    pub(super) position: Position,
    pub(super) header: Vec<u8>,
    pub(super) data: Vec<u8>,
}

/// The most records of a segment without data, so that its header stays short.
const MOST_CHANGES: usize = 4096;

impl Buffer {
    pub(super) fn new() -> Self {
        Self {
            changes: Vec::new(),
            sums: Vec::new(),
            data: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many more blocks a segment of this many blocks takes.
    pub(super) fn room(&self, most: u32) -> u32 {
        match self.changes.len() < MOST_CHANGES {
            true => most.saturating_sub(self.blocks()),
            false => 0,
        }
    }

    /// How many blocks of data it has.
    pub(super) fn blocks(&self) -> u32 {
        u32::try_from(self.sums.len()).unwrap_or(u32::MAX)
    }

    /// Adds blocks with their checksums, and returns the index of the first one.
    pub(super) fn push(&mut self, first: u64, bytes: &[u8], sums: &[Sum]) -> u32 {
        let index = self.blocks();
        let added = u32::try_from(sums.len()).unwrap_or(u32::MAX);
        match self.changes.last_mut() {
            Some(Change::Data { block, count, .. }) if *block + u64::from(*count) == first => {
                *count += added;
            }
            _ => self.changes.push(Change::Data {
                block: first,
                count: added,
                index,
            }),
        }
        self.sums.extend_from_slice(sums);
        self.data.extend_from_slice(bytes);
        index
    }

    /// Overwrites blocks from this index on.
    pub(super) fn overwrite(&mut self, index: u32, bytes: &[u8], sums: &[Sum]) {
        let index = index as usize;
        self.sums[index..index + sums.len()].copy_from_slice(sums);
        let at = index * BLOCK_LEN;
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn record(&mut self, record: Record) {
        self.changes.push(Change::Other(record));
    }

    /// The bytes of blocks.
    pub(super) fn bytes(&self, index: u32, count: u32) -> &[u8] {
        blocks(&self.data, index, count)
    }

    /// The finished segment at this position.
    pub(super) fn seal(
        self,
        uuid: Uuid,
        position: Position,
        nonce: [u8; 16],
        previous: [u8; 32],
    ) -> Sealed {
        let mut header = Header::new(uuid, position, nonce, previous);
        header.records = self
            .changes
            .into_iter()
            .map(|change| match change {
                Change::Other(record) => record,
                Change::Data {
                    block,
                    count,
                    index,
                } => Record::Data {
                    block,
                    sums: self.sums[index as usize..(index + count) as usize].to_vec(),
                },
            })
            .collect();
        Sealed {
            position,
            header: header.encode(),
            data: self.data,
        }
    }
}

impl Sealed {
    /// The bytes of blocks.
    pub(super) fn bytes(&self, index: u32, count: u32) -> &[u8] {
        blocks(&self.data, index, count)
    }
}

fn blocks(data: &[u8], index: u32, count: u32) -> &[u8] {
    let at = index as usize * BLOCK_LEN;
    &data[at..at + count as usize * BLOCK_LEN]
}

/// The checksums of whole blocks.
pub(super) fn sums(bytes: &[u8]) -> Vec<Sum> {
    bytes.chunks_exact(BLOCK_LEN).map(segment::sum).collect()
}
