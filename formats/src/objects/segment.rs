//! A segment of the log: a header with records, then the ciphertext of its data records.

use alloc::format;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::claim::{expect, of_volume};
use super::frame::{self, Kind};
use super::volume::LARGEST;
use super::{BLOCK, Position, Uuid};
use crate::codec::{Reader, Writer};
use crate::error::FormatError;

/// The checksum of a block: the first bytes of its SHA-256.
pub type Sum = [u8; 8];

/// The checksum of a block.
#[must_use]
pub fn sum(block: &[u8]) -> Sum {
    let digest = Sha256::digest(block);
    digest.first_chunk().copied().unwrap_or_default()
}

/// SHA-256 of a header or a claim, which the next header has.
#[must_use]
pub fn hash(object: &[u8]) -> [u8; 32] {
    Sha256::digest(object).into()
}

/// A change of the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// Blocks from this one on have new ciphertext. It follows that of the record before.
    Data {
        /// The first block.
        block: u64,
        /// The checksums of the blocks; their number is that of the blocks.
        sums: Vec<Sum>,
    },
    /// Blocks read as zeroes.
    Hole {
        /// The first block.
        block: u64,
        /// How many blocks.
        count: u64,
    },
    /// The volume has another size. Blocks past a smaller size are holes before this record.
    Resize {
        /// The size in bytes.
        size: u64,
    },
}

/// The header of a segment: the object `e/EPOCH/SEQUENCE` up to its ciphertext.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// Which volume it is.
    pub uuid: Uuid,
    /// Its place in the log.
    pub position: Position,
    /// The nonce of the claim of the epoch.
    pub nonce: [u8; 16],
    /// The hash of the header before, or of the claim before the first one.
    pub previous: [u8; 32],
    /// The changes, in their order.
    pub records: Vec<Record>,
}

/// The highest block.
const LAST_BLOCK: u64 = LARGEST / BLOCK;

impl Header {
    /// A header without records.
    #[must_use]
    pub fn new(uuid: Uuid, position: Position, nonce: [u8; 16], previous: [u8; 32]) -> Self {
        let records = Vec::new();
        Self {
            uuid,
            position,
            nonce,
            previous,
            records,
        }
    }

    /// How many blocks of data there are.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.records.iter().fold(0, |blocks, record| match record {
            Record::Data { sums, .. } => sums.len().saturating_add(blocks),
            Record::Hole { .. } | Record::Resize { .. } => blocks,
        })
    }

    /// Reads the header of the segment at this place of this volume. Bytes after it are not read.
    ///
    /// # Errors
    /// [`FormatError`] if it is malformed.
    pub fn decode(bytes: &[u8], uuid: Uuid, position: Position) -> Result<Self, FormatError> {
        let mut reader = frame::open(bytes, Kind::Segment)?;
        of_volume(&mut reader, uuid)?;
        expect(&mut reader, "epoch", position.epoch.into(), Reader::u32)?;
        expect(&mut reader, "sequence", position.sequence, Reader::u64)?;
        let nonce = reader.array("nonce")?;
        let previous = reader.array("previous")?;
        let count = reader.u32("records")?;
        let mut records = Vec::new();
        for _ in 0..count {
            records.push(record(&mut reader)?);
        }
        frame::finish(reader)?;
        Ok(Self {
            uuid,
            position,
            nonce,
            previous,
            records,
        })
    }

    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(&self.uuid);
        self.position.write(&mut writer);
        writer.bytes(&self.nonce).bytes(&self.previous);
        writer.u32(u32::try_from(self.records.len()).unwrap_or(u32::MAX));
        for record in &self.records {
            match record {
                Record::Data { block, sums } => {
                    let count = u32::try_from(sums.len()).unwrap_or(u32::MAX);
                    writer.u16(1).u64(*block).u32(count);
                    writer.bytes(sums.as_flattened());
                }
                Record::Hole { block, count } => {
                    writer.u16(2).u64(*block).u64(*count);
                }
                Record::Resize { size } => {
                    writer.u16(3).u64(*size);
                }
            }
        }
        frame::seal(Kind::Segment, &writer.finish())
    }
}

fn record(reader: &mut Reader<'_>) -> Result<Record, FormatError> {
    let offset = reader.offset();
    match reader.u16("record")? {
        1 => {
            let block = reader.u64("block")?;
            let count = reader.u32("count")?;
            check(block, count.into(), offset)?;
            let bytes = usize::try_from(count)
                .ok()
                .and_then(|count| count.checked_mul(size_of::<Sum>()))
                .unwrap_or(usize::MAX);
            let (sums, _) = reader.bytes(bytes, "sums")?.as_chunks();
            let sums = sums.to_vec();
            Ok(Record::Data { block, sums })
        }
        2 => {
            let (block, count) = (reader.u64("block")?, reader.u64("count")?);
            check(block, count, offset)?;
            Ok(Record::Hole { block, count })
        }
        3 => match reader.u64("size")? {
            size if size <= LARGEST => Ok(Record::Resize { size }),
            size => Err(FormatError::over_limit(
                "size",
                offset,
                format!("is {size}"),
            )),
        },
        other => Err(FormatError::unsupported(
            "record",
            offset,
            format!("is {other}"),
        )),
    }
}

fn check(block: u64, count: u64, offset: u64) -> Result<(), FormatError> {
    let ends = block.checked_add(count);
    match ends.is_some_and(|end| end <= LAST_BLOCK) && count > 0 {
        true => Ok(()),
        false => {
            let cause = format!("has {count} blocks from {block} on");
            Err(FormatError::malformed("record", offset, cause))
        }
    }
}
