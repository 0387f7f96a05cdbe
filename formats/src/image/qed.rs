//! QED (QEMU's `docs/interop/qed_spec.txt`): the header. Tables hold 64-bit offsets. In an L2
//! table, 0 is an unallocated cluster, and 1 a cluster that reads as zeroes.

use super::fields::{le32, le64};

/// The feature: there is a backing file.
pub const BACKING: u64 = 1;
/// The feature: the tables may be wrong.
pub const NEED_CHECK: u64 = 1 << 1;
/// The feature: the backing file is raw.
pub const BACKING_RAW: u64 = 1 << 2;

/// The header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Header {
    pub cluster_size: u32,
    /// In clusters.
    pub table_size: u32,
    /// In clusters.
    pub header_size: u32,
    pub features: u64,
    pub compat_features: u64,
    pub autoclear_features: u64,
    pub l1_offset: u64,
    pub image_size: u64,
    pub backing_offset: u32,
    pub backing_size: u32,
}

impl Header {
    /// Reads a header. Returns `None` if there are too few bytes or the signature is wrong.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= 64 && bytes.starts_with(b"QED\0")).then(|| Self {
            cluster_size: le32(bytes, 4),
            table_size: le32(bytes, 8),
            header_size: le32(bytes, 12),
            features: le64(bytes, 16),
            compat_features: le64(bytes, 24),
            autoclear_features: le64(bytes, 32),
            l1_offset: le64(bytes, 40),
            image_size: le64(bytes, 48),
            backing_offset: le32(bytes, 56),
            backing_size: le32(bytes, 60),
        })
    }
}
