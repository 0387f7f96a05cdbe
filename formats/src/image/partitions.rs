//! Partition tables: the MBR, and the GPT (UEFI Specification 2.10, section 5).

use super::fields::{array, le32, le64};

/// An entry of the partition table in an MBR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MbrEntry {
    /// 0x80 for the active partition, 0 for the others.
    pub boot: u8,
    /// The first sector as head, sector, cylinder.
    pub start_chs: [u8; 3],
    /// The type; 0 for an unused entry.
    pub kind: u8,
    /// The first sector.
    pub start: u32,
    /// The number of sectors.
    pub sectors: u32,
}

/// The type of the entry that protects a GPT.
pub const PROTECTIVE: u8 = 0xee;

/// The four entries of an MBR, or `None` if its last two bytes are not the boot signature.
pub fn mbr(sector: &[u8]) -> Option<[MbrEntry; 4]> {
    if array(sector, 510) != [0x55, 0xaa] {
        return None;
    }
    Some([446, 462, 478, 494].map(|at: usize| {
        let [boot, head, first, cylinder, kind] = array(sector, at);
        MbrEntry {
            boot,
            start_chs: [head, first, cylinder],
            kind,
            start: le32(sector, at.saturating_add(8)),
            sectors: le32(sector, at.saturating_add(12)),
        }
    }))
}

/// Whether this is the type of an extended partition, which contains further tables.
pub fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0f | 0x85)
}

/// A GPT header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Gpt {
    pub revision: u32,
    pub header_size: u32,
    pub checksum: u32,
    pub reserved: u32,
    pub my_lba: u64,
    pub alternate_lba: u64,
    pub first_usable: u64,
    pub last_usable: u64,
    pub disk_guid: [u8; 16],
    pub entries_lba: u64,
    pub entries: u32,
    pub entry_size: u32,
    pub entries_checksum: u32,
}

impl Gpt {
    /// Reads a header. Returns `None` if there are too few bytes or the signature is wrong.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= 92 && bytes.starts_with(b"EFI PART")).then(|| Self {
            revision: le32(bytes, 8),
            header_size: le32(bytes, 12),
            checksum: le32(bytes, 16),
            reserved: le32(bytes, 20),
            my_lba: le64(bytes, 24),
            alternate_lba: le64(bytes, 32),
            first_usable: le64(bytes, 40),
            last_usable: le64(bytes, 48),
            disk_guid: array(bytes, 56),
            entries_lba: le64(bytes, 72),
            entries: le32(bytes, 80),
            entry_size: le32(bytes, 84),
            entries_checksum: le32(bytes, 88),
        })
    }

    /// The checksum that the header should have: that of `header_size` bytes in which the field of
    /// the checksum is zero. Returns `None` if `bytes` is shorter than that.
    pub fn expected_checksum(&self, bytes: &[u8]) -> Option<u32> {
        let header = bytes.get(..usize::try_from(self.header_size).ok()?)?;
        let (before, rest) = header.split_at_checked(16)?;
        let (_, after) = rest.split_at_checked(4)?;
        let mut crc = Crc32::default();
        crc.update(before);
        crc.update(&[0; 4]);
        crc.update(after);
        Some(crc.value())
    }
}

/// The first and the last sector of a partition in a GPT, or `None` for an unused entry.
pub fn gpt_entry(bytes: &[u8]) -> Option<(u64, u64)> {
    let kind: [u8; 16] = array(bytes, 0);
    (kind != [0; 16]).then(|| (le64(bytes, 32), le64(bytes, 40)))
}

/// A CRC of 32 bits. The default is the one of GPT (ISO 3309, reflected).
#[derive(Clone, Copy, Debug)]
pub struct Crc32 {
    polynomial: u32,
    register: u32,
}

impl Default for Crc32 {
    fn default() -> Self {
        Self {
            polynomial: 0xedb8_8320,
            register: u32::MAX,
        }
    }
}

impl Crc32 {
    /// CRC-32C, which VHDX uses.
    pub fn castagnoli() -> Self {
        Self {
            polynomial: 0x82f6_3b78,
            register: u32::MAX,
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.register = (0..8).fold(self.register ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (self.polynomial & 0_u32.wrapping_sub(crc & 1))
            });
        }
    }

    /// The checksum of all bytes that were added.
    pub fn value(self) -> u32 {
        !self.register
    }
}
