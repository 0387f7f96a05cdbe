//! ISO 9660 (ECMA-119, section 8): the volume descriptors, which begin at byte 32768.

use super::fields::{array, be16, be32, le16, le32};

/// The length of a volume descriptor, and of a sector.
pub const SECTOR: u64 = 2048;
/// The offset of the first volume descriptor, in bytes.
pub const FIRST_DESCRIPTOR: u64 = 16 * SECTOR;

/// What kind of volume descriptor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Type 0.
    Boot,
    /// Type 1.
    Primary,
    /// Type 2: supplementary or enhanced (Joliet).
    Supplementary,
    /// Type 3.
    Partition,
    /// Type 255: the last one.
    Terminator,
    /// Any other type.
    Unknown(u8),
}

/// A number that is stored twice, in little-endian and in big-endian order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Both<T> {
    /// The little-endian number.
    pub little: T,
    /// The big-endian number.
    pub big: T,
}

/// A volume descriptor. The numbers are at the places that they have in a primary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its kind.
    pub kind: Kind,
    /// Its version: 1, or 2 for an enhanced volume descriptor.
    pub version: u8,
    /// The size of the volume in logical blocks.
    pub blocks: Both<u32>,
    /// The size of a logical block in bytes.
    pub block_size: Both<u16>,
    /// The first block of the root directory.
    pub root: Both<u32>,
    /// The length of the root directory in bytes.
    pub root_length: Both<u32>,
}

impl Descriptor {
    /// Reads a descriptor. Returns `None` if it is not one of ISO 9660.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 2048 || array(bytes, 1) != *b"CD001" {
            return None;
        }
        let [kind] = array(bytes, 0);
        let [version] = array(bytes, 6);
        let both32 = |at: usize| Both {
            little: le32(bytes, at),
            big: be32(bytes, at.saturating_add(4)),
        };
        Some(Self {
            kind: match kind {
                0 => Kind::Boot,
                1 => Kind::Primary,
                2 => Kind::Supplementary,
                3 => Kind::Partition,
                255 => Kind::Terminator,
                other => Kind::Unknown(other),
            },
            version,
            blocks: both32(80),
            block_size: Both {
                little: le16(bytes, 128),
                big: be16(bytes, 130),
            },
            root: both32(158),
            root_length: both32(166),
        })
    }
}
