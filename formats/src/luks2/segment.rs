//! Segments (section 3.3): the place of the data, and how it is encrypted.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::json::{Object, Value, json};

use super::authenticated::AuthenticatedSegment;
use super::node::{Node, put_cipher};
use crate::cipher::CipherSpec;
use crate::error::FormatError;

/// The flag of a segment that is being converted, and belongs to the old and to the new key.
pub(super) const HOT: &str = "in-reencryption";

/// A part of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// An encrypted segment.
    Crypt(CryptSegment),
    /// An encrypted segment whose sectors have tags.
    Authenticated(AuthenticatedSegment),
    /// A segment that is not encrypted, during encryption and decryption.
    Linear(LinearSegment),
    /// A segment of unknown type, such as `hw-opal`, or one that has something which this crate
    /// does not support. It can be shown, but not opened.
    Other(OtherSegment),
}

/// A segment of type `crypt`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CryptSegment {
    /// The start in bytes. 0 for a detached header.
    pub offset: u64,
    /// The length.
    pub size: SegmentSize,
    /// The number that is added to the IV of every sector, in 512-byte units.
    pub iv_tweak: u64,
    /// The cipher.
    pub encryption: CipherSpec,
    /// The encryption sector size: 512, 1024, 2048 or 4096 bytes.
    pub sector_size: u32,
    /// The flags, known and unknown.
    pub flags: Vec<String>,
}

impl CryptSegment {
    /// A segment that starts at `offset` and extends to the end of the device, with IVs that count
    /// from 0.
    #[must_use]
    pub fn new(offset: u64, encryption: CipherSpec, sector_size: u32) -> Self {
        Self {
            offset,
            size: SegmentSize::Dynamic,
            iv_tweak: 0,
            encryption,
            sector_size,
            flags: Vec::new(),
        }
    }

    /// Everything but the flags.
    fn read(node: &Node<'_>, offset: u64, size: SegmentSize) -> Result<Self, FormatError> {
        let bytes = node.member("sector_size")?.sector_size()?;
        if let SegmentSize::Fixed(length) = size
            && !length.is_multiple_of(u64::from(bytes))
        {
            return Err(node.member("size")?.malformed(format!(
                "{length} is not a multiple of the sector size {bytes}"
            )));
        }
        Ok(Self {
            offset,
            size,
            iv_tweak: node.member("iv_tweak")?.u64()?,
            encryption: node.member("encryption")?.cipher()?,
            sector_size: bytes,
            flags: Vec::new(),
        })
    }
}

/// A segment of type `linear`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinearSegment {
    /// The start in bytes.
    pub offset: u64,
    /// The length.
    pub size: SegmentSize,
    /// The flags, known and unknown.
    pub flags: Vec<String>,
}

/// A segment of unknown type, or one that cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtherSegment {
    /// The type.
    pub kind: String,
    /// The start in bytes.
    pub offset: u64,
    /// The length.
    pub size: SegmentSize,
    /// The flags, known and unknown.
    pub flags: Vec<String>,
    /// Why a segment of a known type cannot be opened. `None` for an unknown type.
    pub why: Option<FormatError>,
}

/// The length of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentSize {
    /// The segment extends to the end of the device.
    Dynamic,
    /// This number of bytes.
    Fixed(u64),
}

impl Segment {
    /// The start in bytes.
    pub fn offset(&self) -> u64 {
        match self {
            Self::Crypt(segment) => segment.offset,
            Self::Authenticated(segment) => segment.offset,
            Self::Linear(segment) => segment.offset,
            Self::Other(segment) => segment.offset,
        }
    }

    /// The length.
    pub fn size(&self) -> SegmentSize {
        match self {
            Self::Crypt(segment) => segment.size,
            Self::Authenticated(_) => SegmentSize::Dynamic,
            Self::Linear(segment) => segment.size,
            Self::Other(segment) => segment.size,
        }
    }

    /// The flags.
    pub fn flags(&self) -> &[String] {
        match self {
            Self::Crypt(segment) => &segment.flags,
            Self::Authenticated(segment) => &segment.flags,
            Self::Linear(segment) => &segment.flags,
            Self::Other(segment) => &segment.flags,
        }
    }

    /// Whether this is a backup segment: it records the state before or after a reencryption, and
    /// maps no data.
    pub fn is_backup(&self) -> bool {
        self.flags().iter().any(|flag| flag.starts_with("backup-"))
    }

    /// The segment, if it is encrypted without tags.
    pub fn as_crypt(&self) -> Option<&CryptSegment> {
        match self {
            Self::Crypt(segment) => Some(segment),
            Self::Authenticated(_) | Self::Linear(_) | Self::Other(_) => None,
        }
    }

    /// The type, as it is written in headers.
    pub fn kind(&self) -> &str {
        match self {
            Self::Crypt(_) | Self::Authenticated(_) => "crypt",
            Self::Linear(_) => "linear",
            Self::Other(segment) => &segment.kind,
        }
    }

    /// Why the segment cannot be opened, if its type is known.
    pub fn why(&self) -> Option<&FormatError> {
        match self {
            Self::Crypt(_) | Self::Authenticated(_) | Self::Linear(_) => None,
            Self::Other(segment) => segment.why.as_ref(),
        }
    }

    pub(super) fn why_mut(&mut self) -> Option<&mut FormatError> {
        match self {
            Self::Crypt(_) | Self::Authenticated(_) | Self::Linear(_) => None,
            Self::Other(segment) => segment.why.as_mut(),
        }
    }

    /// Reads a segment. The members that every segment has are required.
    pub(super) fn read(node: &Node<'_>) -> Result<Self, FormatError> {
        let kind = node.member("type")?.string()?;
        let offset = read_offset(node)?;
        let size = SegmentSize::read(node)?;
        let flags = match node.optional("flags")? {
            Some(flags) => flags.strings()?,
            None => Vec::new(),
        };
        let why = match kind {
            "crypt" => match read_encrypted(node, offset, size, &flags) {
                Ok(segment) => return Ok(segment),
                Err(why) => Some(why),
            },
            "linear" => {
                return Ok(Self::Linear(LinearSegment {
                    offset,
                    size,
                    flags,
                }));
            }
            _ => None,
        };
        Ok(Self::Other(OtherSegment {
            kind: kind.to_string(),
            offset,
            size,
            flags,
            why,
        }))
    }

    /// Overwrites the known members of `object`. The others stay.
    pub(super) fn write(&self, object: &mut Object) {
        object.insert("type", self.kind());
        object.insert("offset", self.offset().to_string());
        object.insert("size", self.size().to_value());
        match self {
            Self::Crypt(segment) => {
                object.insert("iv_tweak", segment.iv_tweak.to_string());
                put_cipher(object, "encryption", segment.encryption);
                object.insert("sector_size", segment.sector_size);
            }
            Self::Authenticated(segment) => segment.write(object),
            Self::Linear(_) | Self::Other(_) => {}
        }
        if self.flags().is_empty() {
            object.remove("flags");
        } else {
            object.insert("flags", self.flags());
        }
    }
}

impl SegmentSize {
    fn read(segment: &Node<'_>) -> Result<Self, FormatError> {
        let node = segment.member("size")?;
        if node.string()? == "dynamic" {
            return Ok(Self::Dynamic);
        }
        match node.u64()? {
            0 => Err(node.malformed("the segment is empty")),
            size if !size.is_multiple_of(512) => {
                Err(node.malformed(format!("{size} is not a multiple of 512")))
            }
            size => Ok(Self::Fixed(size)),
        }
    }

    fn to_value(self) -> Value {
        match self {
            Self::Dynamic => json!("dynamic"),
            Self::Fixed(size) => json!(size.to_string()),
        }
    }
}

/// Reads an encrypted segment, with tags or without.
fn read_encrypted(
    node: &Node<'_>,
    offset: u64,
    size: SegmentSize,
    flags: &[String],
) -> Result<Segment, FormatError> {
    let flags = flags.to_vec();
    match node.optional("integrity")? {
        None => {
            let segment = CryptSegment::read(node, offset, size)?;
            Ok(Segment::Crypt(CryptSegment { flags, ..segment }))
        }
        Some(integrity) => {
            let segment = AuthenticatedSegment::read(node, &integrity, offset)?;
            if let SegmentSize::Fixed(_) = size {
                let cause = "a fixed size is not supported with authenticated encryption";
                return Err(node.member("size")?.unsupported(cause));
            }
            Ok(Segment::Authenticated(AuthenticatedSegment {
                flags,
                ..segment
            }))
        }
    }
}

fn read_offset(segment: &Node<'_>) -> Result<u64, FormatError> {
    let node = segment.member("offset")?;
    match node.u64()? {
        offset if !offset.is_multiple_of(512) => {
            Err(node.malformed(format!("{offset} is not a multiple of 512")))
        }
        offset => Ok(offset),
    }
}
