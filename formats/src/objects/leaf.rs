//! A leaf of the map: where the blocks of 32 MiB of the volume are. Several leaves are in a pack.

use alloc::format;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::{Position, Uuid};
use crate::codec::{Reader, Writer};
use crate::error::FormatError;

/// How many blocks a leaf describes.
pub const BLOCKS: u32 = 8192;

/// The bytes of an extent.
const EXTENT: usize = 20;

/// The bytes before and after the extents.
const AROUND: usize = 8 + 8;

/// Consecutive blocks with consecutive places in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extent {
    /// The first block, from the start of the leaf.
    pub start: u16,
    /// How many blocks.
    pub count: u16,
    /// The segment.
    pub segment: Position,
    /// The first block in the data of the segment.
    pub index: u32,
}

impl Extent {
    /// An extent.
    #[must_use]
    pub fn new(start: u16, count: u16, segment: Position, index: u32) -> Self {
        Self {
            start,
            count,
            segment,
            index,
        }
    }

    /// The block after the last one, from the start of the leaf.
    #[must_use]
    pub fn end(&self) -> u32 {
        u32::from(self.start).saturating_add(self.count.into())
    }
}

/// The bytes of a leaf with so many extents.
#[must_use]
pub fn length(extents: usize) -> usize {
    extents.saturating_mul(EXTENT).saturating_add(AROUND)
}

/// Reads a leaf. The extents are in order, and do not overlap.
///
/// # Errors
/// [`FormatError`] if it is malformed, or another leaf.
pub fn decode(bytes: &[u8], uuid: Uuid, leaf: u32) -> Result<Vec<Extent>, FormatError> {
    let end = bytes.len().saturating_sub(8);
    let (before, found) = bytes.split_at_checked(end).unwrap_or_default();
    if sum(uuid, before) != found {
        return Err(FormatError::malformed(
            "checksum",
            end as u64,
            "does not match",
        ));
    }
    let mut reader = Reader::new(before, 0);
    if reader.u32("leaf")? != leaf {
        return Err(FormatError::malformed("leaf", 0, "is another one"));
    }
    let count = reader.u32("extents")?;
    let mut extents: Vec<Extent> = Vec::new();
    let mut after = 0;
    for _ in 0..count {
        let offset = reader.offset();
        let extent = Extent {
            start: reader.u16("start")?,
            count: reader.u16("count")?,
            segment: Position::read(&mut reader, "segment")?,
            index: reader.u32("index")?,
        };
        if u32::from(extent.start) < after || extent.count == 0 || extent.end() > BLOCKS {
            let cause = format!("has {} blocks from {} on", extent.count, extent.start);
            return Err(FormatError::malformed("extent", offset, cause));
        }
        after = extent.end();
        extents.push(extent);
    }
    match reader.bytes(1, "end") {
        Ok(_) => Err(FormatError::malformed(
            "extents",
            4,
            "are more than their number",
        )),
        Err(_) => Ok(extents),
    }
}

/// Appends a leaf to a pack.
pub fn encode(pack: &mut Vec<u8>, uuid: Uuid, leaf: u32, extents: &[Extent]) {
    let mut writer = Writer::default();
    writer.u32(leaf);
    writer.u32(u32::try_from(extents.len()).unwrap_or(u32::MAX));
    for extent in extents {
        writer.u16(extent.start).u16(extent.count);
        extent.segment.write(&mut writer);
        writer.u32(extent.index);
    }
    let bytes = writer.finish();
    pack.extend_from_slice(&bytes);
    pack.extend_from_slice(&sum(uuid, &bytes));
}

fn sum(uuid: Uuid, bytes: &[u8]) -> [u8; 8] {
    let digest = Sha256::new()
        .chain_update(uuid)
        .chain_update(bytes)
        .finalize();
    digest.first_chunk().copied().unwrap_or_default()
}
