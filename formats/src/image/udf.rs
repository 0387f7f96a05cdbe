//! UDF (ECMA-167, parts 2 and 3): the volume recognition sequence, which begins at byte 32768, the
//! anchors, and the descriptors of a volume.

use core::fmt;

use super::fields::{array, le16, le32};

/// The offset of the first volume structure descriptor, in bytes.
pub const FIRST_STRUCTURE: u64 = 32768;
/// The least distance between two volume structure descriptors, in bytes. Larger blocks have one
/// at the start of each block.
pub const STRUCTURE: u64 = 2048;
/// The sizes of a block, in bytes.
pub const BLOCK_SIZES: [u64; 7] = [512, 1024, 2048, 4096, 8192, 16384, 32768];
/// The block that has an anchor on every finished volume.
pub const ANCHOR: u64 = 256;
/// The length of a descriptor with its tag, in bytes. It is at the start of a block.
pub const DESCRIPTOR_LENGTH: u64 = 512;

/// A volume structure descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// BEA01: the extended area begins.
    Begin,
    /// BOOT2: a boot descriptor.
    Boot,
    /// NSR02 or NSR03: there is a volume of this version of the standard.
    Volume(u8),
    /// TEA01: the extended area ends.
    End,
    /// CD001 or CDW02: a descriptor of another standard.
    Other,
}

impl Structure {
    /// Reads a descriptor. Returns `None` if it has no known identifier, or another type or version
    /// than the one that the standard has.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let ([kind], [version]) = (array(bytes, 0), array(bytes, 6));
        let structure = match &array(bytes, 1) {
            b"BEA01" => Self::Begin,
            b"BOOT2" => Self::Boot,
            b"NSR02" => Self::Volume(2),
            b"NSR03" => Self::Volume(3),
            b"TEA01" => Self::End,
            b"CD001" | b"CDW02" => return Some(Self::Other),
            _ => return None,
        };
        (kind == 0_u8 && version == 1_u8).then_some(structure)
    }
}

/// Its identifier.
impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => f.write_str("BEA01"),
            Self::Boot => f.write_str("BOOT2"),
            Self::Volume(version) => write!(f, "NSR0{version}"),
            Self::End => f.write_str("TEA01"),
            Self::Other => f.write_str("CD001 or CDW02"),
        }
    }
}

/// A range of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its length in bytes.
    pub length: u32,
    /// Its first block.
    pub block: u32,
}

impl Extent {
    fn parse(bytes: &[u8], at: usize) -> Self {
        Self {
            length: le32(bytes, at),
            block: le32(bytes, at.saturating_add(4)),
        }
    }
}

/// The content of a descriptor, as far as it says where something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Tag 1: the primary volume descriptor.
    Primary,
    /// Tag 2: an anchor, with the main and the reserve sequence of descriptors.
    Anchor(Extent, Extent),
    /// Tag 3: the sequence goes on elsewhere.
    Pointer,
    /// Tag 4: a descriptor of an implementation.
    Implementation,
    /// Tag 5: a partition.
    Partition {
        /// Its first block.
        start: u32,
        /// Its length in blocks.
        blocks: u32,
    },
    /// Tag 6: the logical volume.
    Volume {
        /// The size of its blocks in bytes.
        block_size: u32,
        /// Where its integrity descriptors are.
        integrity: Extent,
    },
    /// Tag 7: unallocated space.
    Unallocated,
    /// Tag 8: the sequence ends.
    Terminator,
    /// Any other tag.
    Unknown(u16),
}

impl Content {
    /// Reads the descriptor at this block. Returns `None` if its tag is not valid: its checksum,
    /// the checksum of the content, or the number of the block.
    pub fn parse(bytes: &[u8], block: u64) -> Option<Self> {
        let tag: &[u8; 16] = bytes.first_chunk()?;
        let sum = (0_usize..)
            .zip(tag)
            .filter(|(at, _)| *at != 4)
            .fold(0_u8, |sum, (_, byte)| sum.wrapping_add(*byte));
        let covered = bytes.get(16..)?.get(..le16(tag, 10).into())?;
        let valid = array(tag, 4) == [sum]
            && crc(covered) == le16(tag, 8)
            && u64::from(le32(tag, 12)) == block
            && matches!(le16(tag, 2), 2 | 3);
        valid.then(|| match le16(tag, 0) {
            1 => Self::Primary,
            2 => Self::Anchor(Extent::parse(bytes, 16), Extent::parse(bytes, 24)),
            3 => Self::Pointer,
            4 => Self::Implementation,
            5 => Self::Partition {
                start: le32(bytes, 188),
                blocks: le32(bytes, 192),
            },
            6 => Self::Volume {
                block_size: le32(bytes, 212),
                integrity: Extent::parse(bytes, 432),
            },
            7 => Self::Unallocated,
            8 => Self::Terminator,
            other => Self::Unknown(other),
        })
    }
}

/// The checksum of a descriptor's content: CRC-16 with the polynomial 0x1021, from 0 on.
pub fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    })
}
