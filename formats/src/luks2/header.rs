//! One copy of a LUKS2 header: 4096 bytes of binary header (section 2.1 of the specification), then
//! the JSON area.
//!
//! ```text
//!   0  magic, version 2        104  salt              64      448  checksum  64
//!   8  size of the copy        168  UUID              40
//!  16  sequence number         208  subsystem         48
//!  24  label          48       256  offset of the copy
//!  72  checksum hash  32       264  zeros
//! ```
//!
//! The checksum covers the whole copy, with its own field zeroed. It is compared before any text is
//! read. It detects accidental damage, and does not protect against an attacker who can write
//! headers.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};

use super::metadata::Metadata;
use super::{ALIGNMENT, text};
use crate::codec::{Reader, Writer, check_text};
use crate::error::FormatError;
use crate::hash::Hash;
use crate::limits::Limits;
use crate::version::MAGIC;

/// The possible sizes of a copy in bytes, from 16 KiB to 4 MiB.
pub const HEADER_SIZES: [u64; 9] = [
    16 << 10,
    32 << 10,
    64 << 10,
    128 << 10,
    256 << 10,
    512 << 10,
    1 << 20,
    2 << 20,
    4 << 20,
];

/// The magic of the secondary header.
pub const MAGIC_SECONDARY: [u8; 6] = *b"SKUL\xba\xbe";

const BINARY_SIZE: usize = 4096;
const LABEL_LEN: usize = 48;
const HASH_LEN: usize = 32;
const SALT_LEN: usize = 64;
const UUID_LEN: usize = 40;
const CHECKSUM_LEN: usize = 64;
const CHECKSUM_AT: usize = 448;
const LABEL_AT: u64 = 24;
const HASH_AT: u64 = 72;
const UUID_AT: u64 = 168;
const SUBSYSTEM_AT: u64 = 208;

/// One of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// The copy at the start of the device.
    Primary,
    /// The copy that follows it, at offset `hdr_size`.
    Secondary,
}

impl Position {
    /// Both positions.
    pub const ALL: [Self; 2] = [Self::Primary, Self::Secondary];

    /// The offset of a copy with this size on the device, in bytes.
    pub fn offset(self, hdr_size: u64) -> u64 {
        match self {
            Self::Primary => 0,
            Self::Secondary => hdr_size,
        }
    }

    fn magic(self) -> [u8; 6] {
        match self {
            Self::Primary => MAGIC,
            Self::Secondary => MAGIC_SECONDARY,
        }
    }
}

/// A LUKS2 header. The two copies on the device differ only in magic, offset, salt and checksum,
/// which are made when a copy is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The size of one copy in bytes, one of [`HEADER_SIZES`].
    pub hdr_size: u64,
    /// The sequence number, which every write increases. Of two valid copies the one with the
    /// higher number is used.
    pub seqid: u64,
    /// The label, up to 47 bytes.
    pub label: String,
    /// The subsystem label, up to 47 bytes.
    pub subsystem: String,
    /// The UUID as text.
    pub uuid: String,
    /// The hash of the checksum: SHA-1, or one of the SHA-2 family.
    pub checksum: Hash,
    /// The metadata.
    pub metadata: Metadata,
}

impl Header {
    /// The size of the copy that starts with these bytes, so that the caller can read all of it.
    /// The first 264 bytes are enough.
    ///
    /// This checks only magic, version, size and offset. Offsets in errors count from the start of
    /// the copy.
    ///
    /// # Errors
    /// Returns [`FormatError`] if this is not such a copy, or if its size is none of
    /// [`HEADER_SIZES`].
    pub fn probe_size(start: &[u8], position: Position) -> Result<u64, FormatError> {
        Fixed::read(&mut Reader::new(start, 0), position).map(|fixed| fixed.hdr_size)
    }

    /// Reads and validates a copy of `hdr_size` bytes. Further bytes are ignored.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the checksum does not match, if it matches and the metadata is
    /// not understood (see [`Metadata::parse`]), or if the size is over the limit.
    pub fn parse(copy: &[u8], position: Position, limits: &Limits) -> Result<Self, FormatError> {
        let fixed = Fixed::read(&mut Reader::new(copy, 0), position)?;
        let base = position.offset(fixed.hdr_size);
        Self::read(copy, &fixed, base, limits)
    }

    fn read(
        copy: &[u8],
        fixed: &Fixed<'_>,
        base: u64,
        limits: &Limits,
    ) -> Result<Self, FormatError> {
        let hdr_size = fixed.hdr_size;
        if hdr_size > limits.metadata_size {
            let cause = format!("is {hdr_size} bytes; the limit is {}", limits.metadata_size);
            return Err(FormatError::over_limit(
                "hdr_size",
                base.saturating_add(8),
                cause,
            ));
        }
        let mut reader = Reader::new(copy, base);
        let copy = reader.bytes(usize::try_from(hdr_size).unwrap_or(usize::MAX), "header")?;
        let (binary, area) = copy.split_at_checked(BINARY_SIZE).unwrap_or((copy, &[]));
        let mut reader = Reader::new(fixed.names, base.saturating_add(LABEL_AT));
        let label_bytes = reader.bytes(LABEL_LEN, "label")?;
        let checksum = read_checksum_hash(&mut reader)?;
        verify(binary, area, checksum, base)?;

        let label =
            Reader::new(label_bytes, base.saturating_add(LABEL_AT)).text(LABEL_LEN, "label")?;
        reader.bytes(SALT_LEN, "salt")?;
        let uuid = reader.text(UUID_LEN, "uuid")?;
        let subsystem = reader.text(LABEL_LEN, "subsystem")?;
        let metadata = Metadata::parse(area, base.saturating_add(ALIGNMENT), hdr_size)?;
        let keyslots_size = metadata.config().keyslots_size;
        if keyslots_size > limits.keyslots_size {
            let cause = format!(
                "is {keyslots_size} bytes; the limit is {}",
                limits.keyslots_size
            );
            return Err(FormatError::over_limit(
                "config.keyslots_size",
                base.saturating_add(ALIGNMENT),
                cause,
            ));
        }
        Ok(Self {
            hdr_size,
            seqid: fixed.seqid,
            label,
            subsystem,
            uuid,
            checksum,
            metadata,
        })
    }

    /// The bytes of a copy: `hdr_size` bytes with their checksum. The caller passes a new random
    /// salt for each copy and each write.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the header is not valid or its text does not fit. So every header
    /// that is written can be read again.
    pub fn to_bytes(
        &self,
        position: Position,
        salt: &[u8; SALT_LEN],
    ) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        let text = text::fitting(self.metadata.value(), self.metadata.config().json_size)?;
        let mut writer = Writer::default();
        writer
            .bytes(&position.magic())
            .u16(2)
            .u64(self.hdr_size)
            .u64(self.seqid)
            .text(&self.label, LABEL_LEN)
            .text(self.checksum.name(), HASH_LEN)
            .bytes(salt)
            .text(&self.uuid, UUID_LEN)
            .text(&self.subsystem, LABEL_LEN)
            .u64(position.offset(self.hdr_size));
        let mut copy = writer.finish();
        copy.resize(BINARY_SIZE, 0);
        copy.extend_from_slice(&text);
        copy.resize(usize::try_from(self.hdr_size).unwrap_or(copy.len()), 0);
        let (binary, area) = copy.split_at_checked(BINARY_SIZE).unwrap_or((&copy, &[]));
        let digest = checksum(self.checksum, binary, area)
            .ok_or_else(|| unsupported_checksum(self.checksum, HASH_AT))?;
        for (to, from) in copy.iter_mut().skip(CHECKSUM_AT).zip(digest) {
            *to = from;
        }
        Ok(copy)
    }

    /// The JSON.
    pub fn json(&self) -> &crate::json::Value {
        self.metadata.value()
    }

    /// Checks the rules that a header has to meet before it is written.
    fn check(&self) -> Result<(), FormatError> {
        check_size(self.hdr_size, 8)?;
        if self.metadata.hdr_size() != self.hdr_size {
            let cause = format!(
                "is {}, but the metadata is for {}",
                self.hdr_size,
                self.metadata.hdr_size()
            );
            return Err(FormatError::malformed("hdr_size", 8, cause));
        }
        check_text(&self.label, LABEL_LEN, "label", LABEL_AT)?;
        check_text(&self.uuid, UUID_LEN, "uuid", UUID_AT)?;
        check_text(&self.subsystem, LABEL_LEN, "subsystem", SUBSYSTEM_AT)?;
        self.metadata.validate()
    }
}

/// The fields that identify a copy and its size. The other fields are used only after the checksum
/// was compared.
struct Fixed<'a> {
    hdr_size: u64,
    seqid: u64,
    /// The fields from the label to the subsystem.
    names: &'a [u8],
}

impl<'a> Fixed<'a> {
    fn read(reader: &mut Reader<'a>, position: Position) -> Result<Self, FormatError> {
        if reader.array::<6>("magic")? != position.magic() {
            let cause = match position {
                Position::Primary => "not a LUKS header",
                Position::Secondary => "not a secondary LUKS2 header",
            };
            return Err(FormatError::malformed("magic", 0, cause));
        }
        match reader.u16("version")? {
            2 => {}
            1 => {
                return Err(FormatError::unsupported(
                    "version",
                    6,
                    "this is a LUKS1 header, not a LUKS2 one",
                ));
            }
            other => {
                let cause = format!("LUKS version {other} is not known");
                return Err(FormatError::unsupported("version", 6, cause));
            }
        }
        let hdr_size = reader.u64("hdr_size")?;
        check_size(hdr_size, 8)?;
        let seqid = reader.u64("seqid")?;
        let names = reader.bytes(
            LABEL_LEN + HASH_LEN + SALT_LEN + UUID_LEN + LABEL_LEN,
            "label",
        )?;
        let at = reader.offset();
        let hdr_offset = reader.u64("hdr_offset")?;
        let expected = position.offset(hdr_size);
        if hdr_offset != expected {
            let cause = format!("is {hdr_offset}; the header is at byte {expected}");
            return Err(FormatError::malformed("hdr_offset", at, cause));
        }
        Ok(Self {
            hdr_size,
            seqid,
            names,
        })
    }
}

fn check_size(hdr_size: u64, at: u64) -> Result<(), FormatError> {
    if HEADER_SIZES.contains(&hdr_size) {
        return Ok(());
    }
    let cause = format!("{hdr_size} is not one of the nine header sizes from 16384 to 4194304");
    Err(FormatError::malformed("hdr_size", at, cause))
}

fn read_checksum_hash(reader: &mut Reader<'_>) -> Result<Hash, FormatError> {
    let at = reader.offset();
    let name = reader.text(HASH_LEN, "checksum_hash")?;
    Hash::parse(&name)
        .map_err(|unknown| FormatError::unsupported("checksum_hash", at, format!("{unknown}")))
}

fn verify(binary: &[u8], area: &[u8], hash: Hash, base: u64) -> Result<(), FormatError> {
    let expected = checksum(hash, binary, area)
        .ok_or_else(|| unsupported_checksum(hash, base.saturating_add(HASH_AT)))?;
    let found = binary.get(CHECKSUM_AT..).unwrap_or_default();
    if found.starts_with(&expected) {
        return Ok(());
    }
    let at = base.saturating_add(CHECKSUM_AT as u64);
    Err(FormatError::malformed(
        "checksum",
        at,
        format!("the {hash} checksum does not match"),
    ))
}

/// The checksum of a copy, with its own field zeroed.
fn checksum(hash: Hash, binary: &[u8], area: &[u8]) -> Option<Vec<u8>> {
    let before = binary.get(..CHECKSUM_AT)?;
    let after = binary.get(CHECKSUM_AT.saturating_add(CHECKSUM_LEN)..)?;
    let parts = [before, &[0; CHECKSUM_LEN], after, area];
    match hash {
        Hash::Sha1 => Some(digest::<Sha1>(parts)),
        Hash::Sha224 => Some(digest::<Sha224>(parts)),
        Hash::Sha256 => Some(digest::<Sha256>(parts)),
        Hash::Sha384 => Some(digest::<Sha384>(parts)),
        Hash::Sha512 => Some(digest::<Sha512>(parts)),
        Hash::Ripemd160
        | Hash::Whirlpool
        | Hash::Sm3
        | Hash::Sha3_224
        | Hash::Sha3_256
        | Hash::Sha3_384
        | Hash::Sha3_512
        | Hash::Blake2s256
        | Hash::Blake2b512 => None,
    }
}

fn digest<D: sha2::Digest>(parts: [&[u8]; 4]) -> Vec<u8> {
    let mut hasher = D::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().to_vec()
}

fn unsupported_checksum(hash: Hash, at: u64) -> FormatError {
    let cause =
        format!("{hash} is not a header checksum; sha1, sha224, sha256, sha384 and sha512 are");
    FormatError::unsupported("checksum_hash", at, cause)
}
