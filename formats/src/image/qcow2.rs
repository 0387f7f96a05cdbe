//! qcow2, versions 2 and 3 (QEMU's `docs/interop/qcow2.txt`): the header, its extensions, and the
//! entries of its tables.

use alloc::vec::Vec;

use super::fields::{array, be16, be32, be64};

/// The signature of every version.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// The length of a version 2 header.
pub const V2_LENGTH: u32 = 72;
/// The least length of a version 3 header.
pub const V3_LENGTH: u32 = 104;
/// The incompatible feature: refcounts may be wrong.
pub const DIRTY: u64 = 1;
/// The incompatible feature: the image is damaged.
pub const CORRUPT: u64 = 1 << 1;
/// The incompatible feature: the guest's data is in another file.
pub const DATA_FILE: u64 = 1 << 2;
/// The incompatible feature: the header has a compression type other than zlib.
pub const COMPRESSION: u64 = 1 << 3;
/// The incompatible feature: L2 entries of 16 bytes with subclusters.
pub const EXTENDED_L2: u64 = 1 << 4;
/// The autoclear feature: the bitmaps are up to date.
pub const BITMAPS: u64 = 1;
/// The autoclear feature: the data file can be read as a raw image.
pub const DATA_FILE_RAW: u64 = 1 << 1;

/// The compression type of images without [`COMPRESSION`]: raw deflate.
pub const ZLIB: u8 = 0;
/// The compression type of images with [`COMPRESSION`].
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
/// The header extension with the place of the bitmaps.
pub const EXT_BITMAPS: u32 = 0x2385_2875;
/// The header extension with the place of the LUKS header.
pub const EXT_CRYPTO: u32 = 0x0537_be77;
/// The header extension that names the external data file.
pub const EXT_DATA_FILE: u32 = 0x4441_5441;

/// The header. A version 2 header has no features, and refcounts of 16 bits.
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
    /// 0 (zlib) if the header is too short to have this field.
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

    /// Reads a header. Returns `None` if there are too few bytes or the signature is wrong. An
    /// unknown version is read as version 3.
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

    /// The number of L1 entries that a disk of `size` bytes needs.
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

    /// The bytes of a version 3 header. There are [`V3_LENGTH`] of them, whatever `header_length`
    /// is.
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

/// Reads the header extensions up to the end marker. The first one begins at `start`, and all must
/// end where `bytes` ends.
///
/// # Errors
/// Returns the offset of an extension that reaches beyond the end of `bytes`, or the offset of the
/// end if there is no end marker before it.
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
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let data = rest.get(8..).and_then(|data| data.get(..length));
        // QEMU reads the length of an end marker too.
        let Some(data) = data else {
            return Err(at as u64);
        };
        if kind == 0 {
            return Ok(found);
        }
        let offset = at.saturating_add(8);
        found.push(Extension {
            kind,
            offset: offset as u64,
            data: data.into(),
        });
        at = offset.saturating_add(length.next_multiple_of(8));
    }
}

/// Reads the data of [`EXT_CRYPTO`]: the offset and the length of the LUKS header.
pub fn crypto_header(data: &[u8]) -> Option<(u64, u64)> {
    (data.len() == 16).then(|| (be64(data, 0), be64(data, 8)))
}

/// A whole [`EXT_CRYPTO`] extension, for a LUKS header with this offset and length.
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
    /// Reads the data of the extension. Returns `None` if its length is wrong.
    pub fn parse(data: &[u8]) -> Option<Self> {
        (data.len() == 24).then(|| Self {
            count: be32(data, 0),
            reserved: be32(data, 4),
            directory_size: be64(data, 8),
            directory_offset: be64(data, 16),
        })
    }
}

/// An entry of the bitmap directory.
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
    /// The length of the fixed part, before the extra data and the name.
    pub const LENGTH: usize = 24;

    /// Reads the fixed part. Returns `None` if there are too few bytes.
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

/// An entry of the snapshot table.
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
    /// The length of the fixed part, before the extra data, the id and the name.
    pub const LENGTH: usize = 40;

    /// Reads the fixed part. Returns `None` if there are too few bytes.
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

    /// The length of the entry. The next entry begins at a multiple of 8. The padding up to there
    /// may be missing after the last entry of the image.
    pub fn length(&self) -> u64 {
        (Self::LENGTH as u64)
            .saturating_add(u64::from(self.extra_size))
            .saturating_add(u64::from(self.id_size))
            .saturating_add(u64::from(self.name_size))
    }

    /// The size of the disk in this snapshot, whose extra data begins with `extra`. Returns `None`
    /// if the extra data is too short to have it.
    pub fn disk_size(extra: &[u8]) -> Option<u64> {
        (extra.len() >= 16).then(|| be64(extra, 8))
    }
}

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// The offset in an entry of the L1, refcount or bitmap table, and whether a reserved bit is set.
/// `used` is the mask of the other bits that have a meaning in this table.
pub fn table_entry(entry: u64, used: u64) -> (u64, bool) {
    (entry & OFFSET, entry & !(OFFSET | used) != 0)
}

/// The bit of L1 and L2 entries that is set if the refcount is exactly one.
pub const COPIED: u64 = 1 << 63;

/// The bit of an L2 entry of version 3 that makes the cluster read as zeroes, whatever is stored.
pub const ZERO: u64 = 1;

/// The meaning of an L2 entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L2Entry {
    /// Nothing is stored, or the cluster reads as zeroes.
    Unallocated,
    /// A cluster that begins at this byte.
    Cluster(u64),
    /// Compressed data that begins at this byte, and has at most this length.
    Compressed(u64, u64),
    /// Reserved bits are set.
    Reserved,
}

/// Reads an L2 entry. `zero_bit` is whether bit 0 may be set (version 3 without extended L2
/// entries).
pub fn l2_entry(entry: u64, cluster_bits: u32, zero_bit: bool) -> L2Entry {
    if entry & (1 << 62) != 0 {
        // Compressed data is never overwritten in place, so it must not claim to be unshared.
        if entry & COPIED != 0 {
            return L2Entry::Reserved;
        }
        let bits = 62_u32.saturating_sub(cluster_bits.saturating_sub(8));
        let offset = entry & low_bits(bits);
        let count = (entry & low_bits(62)).checked_shr(bits).unwrap_or(0);
        // The first sector may be used in part. The entry counts the further ones.
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
