//! The frame of an object: a magic, the kind of the object, the length, and a checksum at the end.

use alloc::format;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::codec::{Reader, Writer};
use crate::error::FormatError;

/// The first bytes of every object but a pack.
pub const MAGIC: [u8; 8] = *b"LKSMOBJ\0";

/// The version of the format.
const VERSION: u16 = 1;

/// The bytes before the contents: magic, version, kind and length.
pub const PROLOGUE: usize = 16;

/// The bytes after the contents: SHA-256 of all before.
const EPILOGUE: usize = 32;

/// The most bytes of a frame. An index of this size describes a volume of more than 100 TiB.
const LONGEST: u32 = 512 << 20;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// [`Volume`](super::volume::Volume).
    Volume,
    /// [`Claim`](super::claim::Claim).
    Claim,
    /// [`Header`](super::segment::Header).
    Segment,
    /// [`Fence`](super::claim::Fence).
    Fence,
    /// [`Root`](super::checkpoint::Root).
    Root,
    /// [`Index`](super::checkpoint::Index).
    Index,
}

const KINDS: [(Kind, u16); 6] = [
    (Kind::Volume, 1),
    (Kind::Claim, 2),
    (Kind::Segment, 3),
    (Kind::Fence, 4),
    (Kind::Root, 5),
    (Kind::Index, 6),
];

/// Reads the kind and the length of the frame from the first [`PROLOGUE`] bytes of an object.
///
/// # Errors
/// [`FormatError`] if this is no object of a volume, or one of a later version.
pub fn prologue(bytes: &[u8]) -> Result<(Kind, usize), FormatError> {
    let mut reader = Reader::new(bytes, 0);
    if reader.array("magic")? != MAGIC {
        return Err(FormatError::malformed(
            "magic",
            0,
            "is not that of a volume",
        ));
    }
    let version = reader.u16("version")?;
    if version != VERSION {
        let cause = format!("is {version}; only version {VERSION} is supported");
        return Err(FormatError::unsupported("version", 8, cause));
    }
    let number = reader.u16("kind")?;
    let kind = KINDS.iter().find(|(_, known)| *known == number);
    let Some((kind, _)) = kind else {
        return Err(FormatError::unsupported("kind", 10, format!("is {number}")));
    };
    let length = reader.u32("length")?;
    let shortest = PROLOGUE.saturating_add(EPILOGUE) as u64;
    if u64::from(length) < shortest || length > LONGEST {
        return Err(FormatError::malformed("length", 12, format!("is {length}")));
    }
    let length = usize::try_from(length);
    length
        .map(|length| (*kind, length))
        .map_err(|_| FormatError::over_limit("length", 12, "is more than the memory has"))
}

/// A reader of the contents of a frame of this kind, with which `bytes` begin.
pub(super) fn open(bytes: &[u8], kind: Kind) -> Result<Reader<'_>, FormatError> {
    let (found, length) = prologue(bytes)?;
    if found != kind {
        return Err(FormatError::malformed(
            "kind",
            10,
            "is that of another object",
        ));
    }
    let end = length.saturating_sub(EPILOGUE);
    let (Some(before), Some(sum), Some(contents)) = (
        bytes.get(..end),
        bytes.get(end..length),
        bytes.get(PROLOGUE..end),
    ) else {
        let cause = format!("is {length}, but the object has {} bytes", bytes.len());
        return Err(FormatError::malformed("length", 12, cause));
    };
    if Sha256::digest(before).as_slice() != sum {
        return Err(FormatError::malformed(
            "checksum",
            end as u64,
            "does not match",
        ));
    }
    Ok(Reader::new(contents, PROLOGUE as u64))
}

/// Refuses contents after the last field.
pub(super) fn finish(mut reader: Reader<'_>) -> Result<(), FormatError> {
    let offset = reader.offset();
    match reader.bytes(1, "end") {
        Ok(_) => Err(FormatError::malformed("end", offset, "has bytes after it")),
        Err(_) => Ok(()),
    }
}

/// The frame of these contents.
pub(super) fn seal(kind: Kind, contents: &[u8]) -> Vec<u8> {
    let number = KINDS.iter().find(|(known, _)| *known == kind);
    let length = contents.len().saturating_add(PROLOGUE + EPILOGUE);
    let mut writer = Writer::default();
    writer
        .bytes(&MAGIC)
        .u16(VERSION)
        .u16(number.map_or(0, |(_, number)| *number))
        .u32(u32::try_from(length).unwrap_or(u32::MAX))
        .bytes(contents);
    let mut bytes = writer.finish();
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum);
    bytes
}
