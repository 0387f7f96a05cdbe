//! VMDK (VMware's *Virtual Disk Format 5.0*): the header of hosted sparse extents, and the
//! descriptor, a text. Offsets and sizes are in sectors of 512 bytes. Grain directories and tables
//! hold 32-bit sector numbers.

use alloc::vec::Vec;

use super::fields::{array, le16, le32, le64};

/// The unit of offsets and sizes, in bytes.
pub const SECTOR: u64 = 512;
/// The flag: the header has the bytes that show a conversion of line ends.
pub const NEWLINES: u32 = 1;
/// The flag: there is a redundant grain directory.
pub const REDUNDANT: u32 = 1 << 1;
/// The flag: an entry of 1 in a grain table is a grain of zeroes.
pub const ZERO_GRAINS: u32 = 1 << 2;
/// The flag: grains are compressed.
pub const COMPRESSED: u32 = 1 << 16;
/// The flag: there are markers between the grains.
pub const MARKERS: u32 = 1 << 17;
/// The value of `gd_offset` if the offset of the grain directory is in the footer.
pub const AT_END: u64 = u64::MAX;

/// The header of a sparse extent, or its footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Header {
    pub version: u32,
    pub flags: u32,
    pub capacity: u64,
    pub grain_size: u64,
    pub descriptor_offset: u64,
    pub descriptor_size: u64,
    pub gtes_per_gt: u32,
    pub rgd_offset: u64,
    pub gd_offset: u64,
    pub overhead: u64,
    pub unclean: u8,
    pub newlines: [u8; 4],
    pub compression: u16,
}

impl Header {
    /// Reads a header. Returns `None` if there are too few bytes or the signature is wrong.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [unclean] = array(bytes, 72);
        (bytes.len() >= 512 && bytes.starts_with(b"KDMV")).then(|| Self {
            version: le32(bytes, 4),
            flags: le32(bytes, 8),
            capacity: le64(bytes, 12),
            grain_size: le64(bytes, 20),
            descriptor_offset: le64(bytes, 28),
            descriptor_size: le64(bytes, 36),
            gtes_per_gt: le32(bytes, 44),
            rgd_offset: le64(bytes, 48),
            gd_offset: le64(bytes, 56),
            overhead: le64(bytes, 64),
            unclean,
            newlines: array(bytes, 73),
            compression: le16(bytes, 77),
        })
    }
}

/// The value, the size and the type of the marker before a footer or at the end of a stream.
pub fn marker(bytes: &[u8]) -> (u64, u32, u32) {
    (le64(bytes, 0), le32(bytes, 8), le32(bytes, 12))
}

/// A line of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Nothing, or a comment: `# …` or, on one line, `/* … */`.
    Empty,
    /// A key and its value, without quotes.
    Field(&'a [u8], &'a [u8]),
    /// An extent.
    Extent(Extent<'a>),
    /// Any other text.
    Unknown,
}

/// An extent: a part of the disk, and the file in which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent<'a> {
    /// `RW`, `RDONLY` or `NOACCESS`.
    pub access: &'a [u8],
    /// Its size in sectors.
    pub sectors: u64,
    /// `SPARSE`, `FLAT`, `ZERO`, …
    pub kind: &'a [u8],
    /// The name of the file.
    pub name: Option<&'a [u8]>,
    /// The first sector in the file.
    pub offset: Option<u64>,
}

/// Reads a line without its line end.
pub fn line(line: &[u8]) -> Line<'_> {
    let line = line.trim_ascii();
    let c_comment = line.starts_with(b"/*") && line.ends_with(b"*/");
    if line.is_empty() || line.starts_with(b"#") || c_comment {
        return Line::Empty;
    }
    if let Some(extent) = extent(line) {
        return Line::Extent(extent);
    }
    let Some(at) = line.iter().position(|byte| *byte == b'=') else {
        return Line::Unknown;
    };
    let (key, value) = line.split_at_checked(at).unwrap_or((line, &[]));
    let key = key.trim_ascii_end();
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    let quoted = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    if key.is_empty() || key.contains(&b' ') || key.contains(&b'"') {
        return Line::Unknown;
    }
    Line::Field(key, quoted.unwrap_or(value))
}

/// Reads an extent, such as `RW 4192256 SPARSE "name"`, `RW 4192256 FLAT "name" 0` or `RW 63 ZERO`.
fn extent(line: &[u8]) -> Option<Extent<'_>> {
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let access = words.next()?;
    if ![&b"RW"[..], b"RDONLY", b"NOACCESS"].contains(&access) {
        return None;
    }
    let sectors = number(words.next()?)?;
    let kind = words.next()?;
    let Some(rest) = words.next() else {
        return Some(Extent {
            access,
            sectors,
            kind,
            name: None,
            offset: None,
        });
    };
    let parts: Vec<&[u8]> = rest
        .strip_prefix(b"\"")?
        .splitn(2, |byte| *byte == b'"')
        .collect();
    let [name, after] = parts.as_slice() else {
        return None;
    };
    let offset = match after.trim_ascii() {
        [] => None,
        digits => Some(number(digits)?),
    };
    Some(Extent {
        access,
        sectors,
        kind,
        name: Some(name),
        offset,
    })
}

/// A number of decimal digits only.
fn number(digits: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(digits).ok()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}
