//! qcow2, versions 2 and 3 (QEMU's `docs/interop/qcow2.txt`): the header, its extensions, and the entries of its tables.

use alloc::vec::Vec;

use super::fields::{array, be16, be32, be64};

/// What every version begins with.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// The length of a version 2 header.
pub const V2_LENGTH: u32 = 72;
/// The least length of a version 3 header.
pub const V3_LENGTH: u32 = 104;
/// The incompatible feature: refcounts may be wrong.
pub const DIRTY: u64 = 1;
/// The incompatible feature: the image is damaged.
pub const CORRUPT: u64 = 1 << 1;
/// The incompatible feature: the guest's data lies in another file.
pub const DATA_FILE: u64 = 1 << 2;
/// The incompatible feature: the compression is named.
pub const COMPRESSION: u64 = 1 << 3;
/// The incompatible feature: L2 entries of 16 bytes with subclusters.
pub const EXTENDED_L2: u64 = 1 << 4;
/// The autoclear feature: the bitmaps are up to date.
pub const BITMAPS: u64 = 1;
/// The autoclear feature: the other file can be read as a raw image.
pub const DATA_FILE_RAW: u64 = 1 << 1;

/// The compression without a name of its own: raw deflate.
pub const ZLIB: u8 = 0;
/// The other compression, which [`COMPRESSION`] comes with.
pub const ZSTD: u8 = 1;

/// The compatible feature: refcounts may lag behind while the image is in use.
pub const LAZY_REFCOUNTS: u64 = 1;

/// The most bytes of an L1 table that QEMU opens.
pub const LARGEST_L1: u64 = 32 << 20;
/// The most bytes of a refcount table that QEMU opens.
pub const LARGEST_REFCOUNT_TABLE: u64 = 8 << 20;

/// The header extension that names the format of the backing file.
pub const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;
/// The header extension with names of features.
pub const EXT_FEATURE_NAMES: u32 = 0x6803_f857;
/// The header extension that says where the bitmaps are.
pub const EXT_BITMAPS: u32 = 0x2385_2875;
/// The header extension that says where the LUKS header is.
pub const EXT_CRYPTO: u32 = 0x0537_be77;
/// The header extension that names the external data file.
pub const EXT_DATA_FILE: u32 = 0x4441_5441;

/// The header. Version 2 has no features, and refcounts of 16 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
#[non_exhaustive]
pub struct Header {
    pub version: u32,
    pub backing_offset: u64,
    pub backing_size: u32,
    pub cluster_bits: u32,
    pub size: u64,
    pub crypt_method: u32,
    pub l1_size: u32,
    pub l1_offset: u64,
    pub refcount_table_offset: u64,
    pub refcount_table_clusters: u32,
    pub snapshots: u32,
    pub snapshots_offset: u64,
    pub incompatible: u64,
    pub compatible: u64,
    pub autoclear: u64,
    pub refcount_order: u32,
    pub header_length: u32,
    /// 0 (zlib) where the header is too short to have it.
    pub compression: u8,
}

impl Header {
    /// A header of version 3 for a disk of `size` bytes, without features, snapshots, encryption or
    /// tables, and with refcounts of 16 bits.
    #[must_use]
    pub fn new(size: u64, cluster_bits: u32) -> Self {
        Self {
            version: 3,
            backing_offset: 0,
            backing_size: 0,
            cluster_bits,
            size,
            crypt_method: 0,
            l1_size: 0,
            l1_offset: 0,
            refcount_table_offset: 0,
            refcount_table_clusters: 0,
            snapshots: 0,
            snapshots_offset: 0,
            incompatible: 0,
            compatible: 0,
            autoclear: 0,
            refcount_order: 4,
            header_length: V3_LENGTH,
            compression: 0,
        }
    }

    /// Reads a header; `None` where the bytes are too few or begin otherwise. A version that is not known is read as 3.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(&MAGIC) || bytes.len() < V3_LENGTH as usize {
            return None;
        }
        let version = be32(bytes, 4);
        let mut header = Self {
            version,
            backing_offset: be64(bytes, 8),
            backing_size: be32(bytes, 16),
            cluster_bits: be32(bytes, 20),
            size: be64(bytes, 24),
            crypt_method: be32(bytes, 32),
            l1_size: be32(bytes, 36),
            l1_offset: be64(bytes, 40),
            refcount_table_offset: be64(bytes, 48),
            refcount_table_clusters: be32(bytes, 56),
            snapshots: be32(bytes, 60),
            snapshots_offset: be64(bytes, 64),
            incompatible: 0,
            compatible: 0,
            autoclear: 0,
            refcount_order: 4,
            header_length: V2_LENGTH,
            compression: 0,
        };
        if version != 2 {
            header.incompatible = be64(bytes, 72);
            header.compatible = be64(bytes, 80);
            header.autoclear = be64(bytes, 88);
            header.refcount_order = be32(bytes, 96);
            header.header_length = be32(bytes, 100);
            if header.header_length > V3_LENGTH {
                let [compression] = array(bytes, 104);
                header.compression = compression;
            }
        }
        Some(header)
    }

    /// How many L1 entries a disk of `size` bytes needs.
    pub fn l1_entries(&self, size: u64) -> u64 {
        let entry_bits = if self.incompatible & EXTENDED_L2 != 0 {
            4
        } else {
            3
        };
        let reach = self
            .cluster_bits
            .saturating_mul(2)
            .saturating_sub(entry_bits);
        size.div_ceil(1_u64.checked_shl(reach).unwrap_or(u64::MAX))
    }

    /// The bytes of a version 3 header: [`V3_LENGTH`] of them, whatever `header_length` says.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(V3_LENGTH as usize);
        bytes.extend(MAGIC);
        bytes.extend(3_u32.to_be_bytes());
        bytes.extend(self.backing_offset.to_be_bytes());
        bytes.extend(self.backing_size.to_be_bytes());
        bytes.extend(self.cluster_bits.to_be_bytes());
        bytes.extend(self.size.to_be_bytes());
        bytes.extend(self.crypt_method.to_be_bytes());
        bytes.extend(self.l1_size.to_be_bytes());
        bytes.extend(self.l1_offset.to_be_bytes());
        bytes.extend(self.refcount_table_offset.to_be_bytes());
        bytes.extend(self.refcount_table_clusters.to_be_bytes());
        bytes.extend(self.snapshots.to_be_bytes());
        bytes.extend(self.snapshots_offset.to_be_bytes());
        bytes.extend(self.incompatible.to_be_bytes());
        bytes.extend(self.compatible.to_be_bytes());
        bytes.extend(self.autoclear.to_be_bytes());
        bytes.extend(self.refcount_order.to_be_bytes());
        bytes.extend(V3_LENGTH.to_be_bytes());
        bytes
    }
}

/// A header extension.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extension {
    /// Its type.
    pub kind: u32,
    /// Where its data begins, in bytes from the start of the image.
    pub offset: u64,
    /// Its data, without padding.
    pub data: Vec<u8>,
}

/// The header extensions in `bytes`, which end where extensions must end; `start` is where the first one begins.
/// Stops at the end marker. `Err` is the byte of an extension that does not fit.
///
/// # Errors
/// The offset of the extension that reaches over the end, or of the end where no end marker comes before it.
pub fn extensions(bytes: &[u8], start: usize) -> Result<Vec<Extension>, u64> {
    let mut found = Vec::new();
    let mut at = start;
    loop {
        let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= 8) else {
            // A header that fills its cluster has no extensions.
            let none = found.is_empty() && at >= bytes.len();
            return if none { Ok(found) } else { Err(at as u64) };
        };
        let (kind, length) = (be32(rest, 0), be32(rest, 4));
        if kind == 0 {
            return Ok(found);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let data = rest.get(8..).and_then(|data| data.get(..length));
        let Some(data) = data else {
            return Err(at as u64);
        };
        let offset = at.saturating_add(8);
        found.push(Extension {
            kind,
            offset: offset as u64,
            data: data.into(),
        });
        at = offset.saturating_add(length.next_multiple_of(8));
    }
}

/// The data of [`EXT_CRYPTO`]: offset and length of the LUKS header.
pub fn crypto_header(data: &[u8]) -> Option<(u64, u64)> {
    (data.len() == 16).then(|| (be64(data, 0), be64(data, 8)))
}

/// A whole [`EXT_CRYPTO`] extension for a LUKS header at this offset and of this length.
pub fn crypto_extension(offset: u64, len: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24);
    bytes.extend(EXT_CRYPTO.to_be_bytes());
    bytes.extend(16_u32.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

/// The data of [`EXT_BITMAPS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
#[non_exhaustive]
pub struct Bitmaps {
    pub count: u32,
    pub reserved: u32,
    pub directory_size: u64,
    pub directory_offset: u64,
}

impl Bitmaps {
    /// Reads the extension's data; `None` where it has another length.
    pub fn parse(data: &[u8]) -> Option<Self> {
        (data.len() == 24).then(|| Self {
            count: be32(data, 0),
            reserved: be32(data, 4),
            directory_size: be64(data, 8),
            directory_offset: be64(data, 16),
        })
    }
}

/// One entry of the bitmap directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
#[non_exhaustive]
pub struct Bitmap {
    pub table_offset: u64,
    pub table_size: u32,
    pub flags: u32,
    pub kind: u8,
    pub granularity_bits: u8,
    pub name_size: u16,
    pub extra_size: u32,
}

impl Bitmap {
    /// The bytes before extra data and name.
    pub const LENGTH: usize = 24;

    /// Reads the fixed part; `None` where the bytes are too few.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [kind, granularity_bits] = array(bytes, 16);
        (bytes.len() >= Self::LENGTH).then(|| Self {
            table_offset: be64(bytes, 0),
            table_size: be32(bytes, 8),
            flags: be32(bytes, 12),
            kind,
            granularity_bits,
            name_size: be16(bytes, 18),
            extra_size: be32(bytes, 20),
        })
    }

    /// The length of the whole entry, a multiple of 8.
    pub fn length(&self) -> u64 {
        (Self::LENGTH as u64)
            .saturating_add(u64::from(self.extra_size))
            .saturating_add(u64::from(self.name_size))
            .next_multiple_of(8)
    }
}

/// One entry of the snapshot table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
#[non_exhaustive]
pub struct Snapshot {
    pub l1_offset: u64,
    pub l1_size: u32,
    pub id_size: u16,
    pub name_size: u16,
    pub vm_state_size: u32,
    pub extra_size: u32,
}

impl Snapshot {
    /// The bytes before extra data, id and name.
    pub const LENGTH: usize = 40;

    /// Reads the fixed part; `None` where the bytes are too few.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= Self::LENGTH).then(|| Self {
            l1_offset: be64(bytes, 0),
            l1_size: be32(bytes, 8),
            id_size: be16(bytes, 12),
            name_size: be16(bytes, 14),
            vm_state_size: be32(bytes, 32),
            extra_size: be32(bytes, 36),
        })
    }

    /// The bytes of the entry. The next one begins at a multiple of 8; what is up to there need not be in the image behind the last.
    pub fn length(&self) -> u64 {
        (Self::LENGTH as u64)
            .saturating_add(u64::from(self.extra_size))
            .saturating_add(u64::from(self.id_size))
            .saturating_add(u64::from(self.name_size))
    }

    /// The size of the disk in this snapshot, where its extra data begins with `extra`.
    pub fn disk_size(extra: &[u8]) -> Option<u64> {
        (extra.len() >= 16).then(|| be64(extra, 8))
    }
}

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// The offset in an entry of the L1, refcount or bitmap table, and whether a bit is set that must not be.
/// `used` are the other bits that have a meaning there.
pub fn table_entry(entry: u64, used: u64) -> (u64, bool) {
    (entry & OFFSET, entry & !(OFFSET | used) != 0)
}

/// The bit of L1 and L2 entries that says that the refcount is exactly one.
pub const COPIED: u64 = 1 << 63;

/// The bit of an L2 entry of version 3 that says that the cluster reads as zeroes, whatever is stored.
pub const ZERO: u64 = 1;

/// What an L2 entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L2Entry {
    /// Nothing is stored, or it reads as zeroes.
    Unallocated,
    /// A cluster at this byte.
    Cluster(u64),
    /// Compressed data from this byte, in no more than so many bytes.
    Compressed(u64, u64),
    /// Bits are set that must not be.
    Reserved,
}

/// Reads an L2 entry; `zero_bit` says whether bit 0 may be set (version 3 without extended L2 entries).
pub fn l2_entry(entry: u64, cluster_bits: u32, zero_bit: bool) -> L2Entry {
    if entry & (1 << 62) != 0 {
        // Compressed data is nobody's alone to overwrite.
        if entry & COPIED != 0 {
            return L2Entry::Reserved;
        }
        let bits = 62_u32.saturating_sub(cluster_bits.saturating_sub(8));
        let offset = entry & low_bits(bits);
        let count = (entry & low_bits(62)).checked_shr(bits).unwrap_or(0);
        // The first sector may be used in part; further ones are counted.
        let first = 512_u64.saturating_sub(offset & 511);
        return L2Entry::Compressed(offset, first.saturating_add(count.saturating_mul(512)));
    }
    let zero = u64::from(zero_bit);
    match table_entry(entry, COPIED | zero) {
        (_, true) => L2Entry::Reserved,
        (0, _) => L2Entry::Unallocated,
        (offset, _) => L2Entry::Cluster(offset),
    }
}

fn low_bits(count: u32) -> u64 {
    1_u64.checked_shl(count).unwrap_or(0).wrapping_sub(1)
}
