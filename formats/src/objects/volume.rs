//! The object `volume`: what never changes.

use alloc::format;
use alloc::vec::Vec;

use super::frame::{self, Kind};
use super::{BLOCK, Uuid};
use crate::codec::Writer;
use crate::error::FormatError;

/// When a flush is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlushMode {
    /// When the store has the objects.
    Store,
    /// When a file on the writer's host has the data.
    Journal,
}

/// What never changes in a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Volume {
    /// Which volume it is. Every other object names it.
    pub uuid: Uuid,
    /// The most bytes of data in a segment: whole blocks.
    pub object_size: u32,
    /// When a flush is done.
    pub flush_mode: FlushMode,
    /// The size in bytes before the first change of it.
    pub size: u64,
    /// Whether it may be written in a store that overwrites objects. There only the order of
    /// requests keeps two writers apart.
    pub unfenced: bool,
}

/// The feature of a volume that may be written in a store that overwrites objects.
const UNFENCED: u64 = 1;

/// The smallest and the largest size of an object in bytes.
const OBJECT_SIZES: core::ops::RangeInclusive<u32> = 16 << 10..=64 << 20;

/// The largest volume in bytes: 2^32 leaves are more.
pub const LARGEST: u64 = 1 << 50;

impl Volume {
    /// A volume with objects of 8 MiB, whose flushes are done when the store has the objects.
    #[must_use]
    pub fn new(uuid: Uuid, size: u64) -> Self {
        Self {
            uuid,
            object_size: 8 << 20,
            flush_mode: FlushMode::Store,
            size,
            unfenced: false,
        }
    }

    /// The same with this size of an object in bytes, which [`decode`](Self::decode) checks.
    #[must_use]
    pub fn with_object_size(self, object_size: u32) -> Self {
        Self {
            object_size,
            ..self
        }
    }

    /// The same, whose flushes are done when a file on the writer's host has the data.
    #[must_use]
    pub fn with_journal(self) -> Self {
        let flush_mode = FlushMode::Journal;
        Self { flush_mode, ..self }
    }

    /// The same, which may be written in a store that overwrites objects.
    #[must_use]
    pub fn with_unfenced(self) -> Self {
        Self {
            unfenced: true,
            ..self
        }
    }

    /// Reads the object.
    ///
    /// # Errors
    /// [`FormatError`] if it is malformed, or needs a feature that is not known.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = frame::open(bytes, Kind::Volume)?;
        let uuid = reader.array("uuid")?;
        let offset = reader.offset();
        let features = reader.u64("features")?;
        if features & !UNFENCED != 0 {
            let cause = format!("has {features:#x}, which this version does not know");
            return Err(FormatError::unsupported("features", offset, cause));
        }
        let offset = reader.offset();
        let object_size = reader.u32("object size")?;
        let whole = u64::from(object_size).is_multiple_of(BLOCK);
        if !OBJECT_SIZES.contains(&object_size) || !whole {
            let cause = format!("is {object_size}");
            return Err(FormatError::malformed("object size", offset, cause));
        }
        let offset = reader.offset();
        let flush_mode = match reader.u16("flush mode")? {
            0 => FlushMode::Store,
            1 => FlushMode::Journal,
            other => {
                let cause = format!("is {other}");
                return Err(FormatError::unsupported("flush mode", offset, cause));
            }
        };
        let offset = reader.offset();
        let size = reader.u64("size")?;
        if size > LARGEST {
            return Err(FormatError::over_limit(
                "size",
                offset,
                format!("is {size}"),
            ));
        }
        frame::finish(reader)?;
        Ok(Self {
            uuid,
            object_size,
            flush_mode,
            size,
            unfenced: features & UNFENCED != 0,
        })
    }

    /// The bytes of the object.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        let features = if self.unfenced { UNFENCED } else { 0 };
        writer.bytes(&self.uuid).u64(features).u32(self.object_size);
        writer.u16(match self.flush_mode {
            FlushMode::Store => 0,
            FlushMode::Journal => 1,
        });
        writer.u64(self.size);
        frame::seal(Kind::Volume, &writer.finish())
    }
}
