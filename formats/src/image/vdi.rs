//! VirtualBox's VDI, version 1.1: the header. The block map holds 32-bit block numbers.

use super::fields::{array, le32, le64};

/// The length of the header of version 1.1, in bytes.
pub const LENGTH: usize = 456;
/// A map entry: nothing is stored.
pub const UNALLOCATED: u32 = u32::MAX;
/// A map entry: the block reads as zeroes.
pub const ZERO: u32 = u32::MAX - 1;

/// The header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as VirtualBox does")]
pub struct Header {
    pub version: u32,
    pub header_size: u32,
    pub image_type: u32,
    pub map_offset: u32,
    pub data_offset: u32,
    pub sector_size: u32,
    pub disk_size: u64,
    pub block_size: u32,
    pub block_extra: u32,
    pub blocks: u32,
    pub blocks_allocated: u32,
    pub uuid_link: [u8; 16],
    pub uuid_parent: [u8; 16],
}

impl Header {
    /// Reads a header. Returns `None` if there are too few bytes or the signature is wrong.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= LENGTH && le32(bytes, 64) == 0xbeda_107f).then(|| Self {
            version: le32(bytes, 68),
            header_size: le32(bytes, 72),
            image_type: le32(bytes, 76),
            map_offset: le32(bytes, 340),
            data_offset: le32(bytes, 344),
            sector_size: le32(bytes, 360),
            disk_size: le64(bytes, 368),
            block_size: le32(bytes, 376),
            block_extra: le32(bytes, 380),
            blocks: le32(bytes, 384),
            blocks_allocated: le32(bytes, 388),
            uuid_link: array(bytes, 424),
            uuid_parent: array(bytes, 440),
        })
    }
}
