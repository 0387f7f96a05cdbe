//! The claim of a writer on an epoch, and the fence that ends the log of an epoch.

use alloc::string::String;
use alloc::vec::Vec;

use super::frame::{self, Kind};
use super::{RootId, Uuid};
use crate::codec::{Reader, Writer};
use crate::error::FormatError;
use crate::raw_text;

/// The claim of a writer: the object `e/EPOCH/open`. The epochs are claimed one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// Which volume it is.
    pub uuid: Uuid,
    /// The epoch that is claimed.
    pub epoch: u32,
    /// Random bytes, by which the writer recognises its own objects.
    pub nonce: [u8; 16],
    /// The newest checkpoint when the epoch was claimed. There may be newer ones in the epochs
    /// before this one.
    pub base: Option<RootId>,
    /// When the epoch was claimed, in seconds since 1970.
    pub time: u64,
    /// The name of the writer's host.
    pub host: String,
}

impl Claim {
    /// A claim of this epoch.
    #[must_use]
    pub fn new(uuid: Uuid, epoch: u32, nonce: [u8; 16]) -> Self {
        let (base, time, host) = (None, 0, String::new());
        Self {
            uuid,
            epoch,
            nonce,
            base,
            time,
            host,
        }
    }

    /// Reads the object of this epoch of this volume.
    ///
    /// # Errors
    /// [`FormatError`] if it is malformed.
    pub fn decode(bytes: &[u8], uuid: Uuid, epoch: u32) -> Result<Self, FormatError> {
        let mut reader = frame::open(bytes, Kind::Claim)?;
        of_volume(&mut reader, uuid)?;
        expect(&mut reader, "epoch", epoch.into(), Reader::u32)?;
        let claim = Self {
            uuid,
            epoch,
            nonce: reader.array("nonce")?,
            base: RootId::read(&mut reader, "base")?,
            time: reader.u64("time")?,
            host: text(&mut reader, "host")?,
        };
        frame::finish(reader)?;
        Ok(claim)
    }

    /// The bytes of the object. A host name of more than 255 bytes is cut.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(&self.uuid).u32(self.epoch).bytes(&self.nonce);
        RootId::write(self.base, &mut writer);
        writer.u64(self.time);
        write_text(&self.host, &mut writer);
        frame::seal(Kind::Claim, &writer.finish())
    }
}

/// The end of the log, or of the checkpoints, of an epoch. Its name is that of the next segment or
/// root, so that the writer of the epoch cannot create that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fence {
    /// Which volume it is.
    pub uuid: Uuid,
    /// The epoch that ends here.
    pub epoch: u32,
    /// The number of the segment or root that is not there.
    pub number: u64,
    /// The epoch of the writer that ends it: a later one, or the same one at an orderly end.
    pub by: u32,
    /// The nonce of that writer.
    pub nonce: [u8; 16],
}

impl Fence {
    /// A fence.
    #[must_use]
    pub fn new(uuid: Uuid, (epoch, number): (u32, u64), by: u32, nonce: [u8; 16]) -> Self {
        Self {
            uuid,
            epoch,
            number,
            by,
            nonce,
        }
    }

    /// Whether the writer of the epoch has ended it itself.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        self.by == self.epoch
    }

    /// Reads a fence at this place of this volume.
    ///
    /// # Errors
    /// [`FormatError`] if it is malformed.
    pub fn decode(bytes: &[u8], uuid: Uuid, epoch: u32, number: u64) -> Result<Self, FormatError> {
        let mut reader = frame::open(bytes, Kind::Fence)?;
        of_volume(&mut reader, uuid)?;
        expect(&mut reader, "epoch", epoch.into(), Reader::u32)?;
        expect(&mut reader, "number", number, Reader::u64)?;
        let offset = reader.offset();
        let by = reader.u32("by")?;
        if by < epoch {
            return Err(FormatError::malformed("by", offset, "is an earlier epoch"));
        }
        let nonce = reader.array("nonce")?;
        frame::finish(reader)?;
        Ok(Self::new(uuid, (epoch, number), by, nonce))
    }

    /// The bytes of the object.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(&self.uuid).u32(self.epoch).u64(self.number);
        writer.u32(self.by).bytes(&self.nonce);
        frame::seal(Kind::Fence, &writer.finish())
    }
}

/// Reads the UUID, which has to be that of the volume.
pub(super) fn of_volume(reader: &mut Reader<'_>, uuid: Uuid) -> Result<(), FormatError> {
    let offset = reader.offset();
    match reader.array("uuid")? == uuid {
        true => Ok(()),
        false => Err(FormatError::malformed(
            "uuid",
            offset,
            "is that of another volume",
        )),
    }
}

/// Reads a number, which has to be this one.
pub(super) fn expect<'a, T: Into<u64>>(
    reader: &mut Reader<'a>,
    field: &str,
    value: u64,
    read: fn(&mut Reader<'a>, &str) -> Result<T, FormatError>,
) -> Result<(), FormatError> {
    let offset = reader.offset();
    match read(reader, field)?.into() == value {
        true => Ok(()),
        false => Err(FormatError::malformed(
            field,
            offset,
            "is that of another object",
        )),
    }
}

/// Reads a text after its length.
pub(super) fn text(reader: &mut Reader<'_>, field: &str) -> Result<String, FormatError> {
    let length = reader.u16(field)?;
    Ok(raw_text::decode(reader.bytes(length.into(), field)?))
}

/// Writes a text of at most 255 bytes after its length.
pub(super) fn write_text(text: &str, writer: &mut Writer) {
    let text = raw_text::encode(text);
    let taken = text.get(..text.len().min(255)).unwrap_or_default();
    writer
        .u16(u16::try_from(taken.len()).unwrap_or_default())
        .bytes(taken);
}
