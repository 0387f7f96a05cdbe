//! VHD (Microsoft's *Virtual Hard Disk Image Format Specification* 1.0): the footer, and the header
//! of dynamic disks. The block allocation table holds 32-bit sector numbers.

use super::fields::{array, be16, be32, be64};

/// The length of a footer in bytes.
pub const FOOTER: usize = 512;
/// The length of the header of a dynamic disk in bytes.
pub const HEADER: usize = 1024;
/// An entry of the block allocation table: nothing is stored.
pub const UNALLOCATED: u32 = u32::MAX;

/// The disk type: the raw data, followed by the footer.
pub const FIXED: u32 = 2;
/// The disk type: blocks, at the places that the table gives.
pub const DYNAMIC: u32 = 3;
/// The disk type: blocks; the other data is in a parent.
pub const DIFFERENCING: u32 = 4;

/// Cylinders, heads, and sectors of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words say it")]
pub struct Geometry {
    pub cylinders: u16,
    pub heads: u8,
    pub sectors: u8,
}

impl Geometry {
    /// The largest geometry, which every disk of at least this size has.
    pub const LARGEST: Self = Self {
        cylinders: u16::MAX,
        heads: 16,
        sectors: 255,
    };

    /// The number of sectors.
    pub fn total(self) -> u64 {
        u64::from(self.cylinders)
            .saturating_mul(self.heads.into())
            .saturating_mul(self.sectors.into())
    }

    /// The number of sectors of a cylinder.
    pub fn cylinder(self) -> u64 {
        u64::from(self.heads).saturating_mul(self.sectors.into())
    }
}

/// A footer, or its copy at the start of a dynamic disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Footer {
    pub features: u32,
    pub version: u32,
    pub data_offset: u64,
    pub original_size: u64,
    pub current_size: u64,
    pub geometry: Geometry,
    pub disk_type: u32,
    pub checksum: u32,
    pub saved_state: u8,
}

impl Footer {
    /// Reads a footer. Returns `None` if there are too few bytes or the signature is wrong.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [heads, sectors] = array(bytes, 58);
        let [saved_state] = array(bytes, 84);
        (bytes.len() >= FOOTER && bytes.starts_with(b"conectix")).then(|| Self {
            features: be32(bytes, 8),
            version: be32(bytes, 12),
            data_offset: be64(bytes, 16),
            original_size: be64(bytes, 40),
            current_size: be64(bytes, 48),
            geometry: Geometry {
                cylinders: be16(bytes, 56),
                heads,
                sectors,
            },
            disk_type: be32(bytes, 60),
            checksum: be32(bytes, 64),
            saved_state,
        })
    }
}

/// The header of a dynamic disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Header {
    pub table_offset: u64,
    pub version: u32,
    pub max_table_entries: u32,
    pub block_size: u32,
    pub checksum: u32,
}

impl Header {
    /// Reads a header. Returns `None` if there are too few bytes or the signature is wrong.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= HEADER && bytes.starts_with(b"cxsparse")).then(|| Self {
            table_offset: be64(bytes, 16),
            version: be32(bytes, 24),
            max_table_entries: be32(bytes, 28),
            block_size: be32(bytes, 32),
            checksum: be32(bytes, 36),
        })
    }
}

/// The parts of a header that name a parent: its UUID and time, its name, and the eight locators.
/// Each with its name, its offset and its bytes.
pub fn parent(header: &[u8]) -> [(&'static str, u64, &[u8]); 3] {
    let part = |from: usize, to: usize| header.get(from..to).unwrap_or_default();
    [
        ("parent uuid", 40, part(40, 60)),
        ("parent name", 64, part(64, 576)),
        ("parent locators", 576, part(576, 768)),
    ]
}

/// The checksum of a footer or header: the complement of the sum of all bytes but those of the
/// checksum's own field, which begins at `at`.
pub fn checksum(bytes: &[u8], at: usize) -> u32 {
    let own = at..at.saturating_add(4);
    let sum = bytes
        .iter()
        .enumerate()
        .filter(|(place, _)| !own.contains(place))
        .fold(0_u32, |sum, (_, byte)| sum.wrapping_add((*byte).into()));
    !sum
}
