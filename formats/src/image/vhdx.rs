//! VHDX (Microsoft's MS-VHDX): headers, region table, metadata table, and entries of the block
//! allocation table.

use super::fields::{array, le16, le32, le64};
use super::partitions::Crc32;

/// A GUID in the byte order in which it is stored.
pub type Guid = [u8; 16];

/// The region: the block allocation table.
pub const BAT: Guid = *b"\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";
/// The region: the metadata.
pub const METADATA: Guid = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
/// The metadata item: block size and flags.
pub const FILE_PARAMETERS: Guid =
    *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
/// The metadata item: the size of the disk.
pub const DISK_SIZE: Guid = *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
/// The metadata item: the id of the disk.
pub const DISK_ID: Guid = *b"\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46";
/// The metadata item: the logical sector size.
pub const LOGICAL_SECTOR: Guid =
    *b"\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f";
/// The metadata item: the physical sector size.
pub const PHYSICAL_SECTOR: Guid =
    *b"\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56";
/// The metadata item: the place of the parent.
pub const PARENT_LOCATOR: Guid =
    *b"\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c";

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Header {
    pub checksum: u32,
    pub sequence: u64,
    pub log_guid: Guid,
    pub log_version: u16,
    pub version: u16,
    pub log_length: u32,
    pub log_offset: u64,
}

impl Header {
    /// The number of bytes that its checksum covers.
    pub const LENGTH: u64 = 4096;

    /// Reads a header. Returns `None` if there are too few bytes or the signature is wrong.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        (bytes.len() as u64 >= Self::LENGTH && bytes.starts_with(b"head")).then(|| Self {
            checksum: le32(bytes, 4),
            sequence: le64(bytes, 8),
            log_guid: array(bytes, 48),
            log_version: le16(bytes, 64),
            version: le16(bytes, 66),
            log_length: le32(bytes, 68),
            log_offset: le64(bytes, 72),
        })
    }
}

/// The checksum of a header or region table: CRC-32C, with zeroes in the checksum's own field at
/// byte 4.
pub fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc32::castagnoli();
    crc.update(bytes.get(..4).unwrap_or_default());
    crc.update(&[0; 4]);
    crc.update(bytes.get(8..).unwrap_or_default());
    crc.value()
}

/// The number of entries of a region table, and its checksum. Returns `None` if the signature is
/// wrong.
pub fn regions(bytes: &[u8]) -> Option<(u32, u32)> {
    bytes
        .starts_with(b"regi")
        .then(|| (le32(bytes, 8), le32(bytes, 4)))
}

/// An entry of the region table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Region {
    pub guid: Guid,
    pub offset: u64,
    pub length: u32,
    pub required: bool,
}

impl Region {
    /// The length of an entry. The entries begin at byte 16 of the table.
    pub const LENGTH: usize = 32;

    /// Reads an entry.
    pub fn parse(bytes: &[u8]) -> Self {
        Self {
            guid: array(bytes, 0),
            offset: le64(bytes, 16),
            length: le32(bytes, 24),
            required: le32(bytes, 28) & 1 != 0,
        }
    }
}

/// The number of items of a metadata table. Returns `None` if the signature is wrong.
pub fn metadata(bytes: &[u8]) -> Option<u16> {
    bytes.starts_with(b"metadata").then(|| le16(bytes, 10))
}

/// An item of the metadata table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Item {
    pub guid: Guid,
    /// From the start of the metadata region.
    pub offset: u32,
    pub length: u32,
    pub is_user: bool,
    pub required: bool,
}

impl Item {
    /// The length of an item. The items begin at byte 32 of the table.
    pub const LENGTH: usize = 32;

    /// Reads an item.
    pub fn parse(bytes: &[u8]) -> Self {
        let flags = le32(bytes, 24);
        Self {
            guid: array(bytes, 0),
            offset: le32(bytes, 16),
            length: le32(bytes, 20),
            is_user: flags & 1 != 0,
            required: flags & 4 != 0,
        }
    }
}

/// The state of an entry of the block allocation table, the offset in it, and whether reserved bits
/// are set.
pub fn block(entry: u64) -> (u8, u64, bool) {
    let [state, ..] = (entry & 7).to_le_bytes();
    (state, entry & !0xf_ffff, entry & 0xf_fff8 != 0)
}
