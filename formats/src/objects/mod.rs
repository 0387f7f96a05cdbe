//! A volume as a log of objects in an object store: the names of the objects, and their bytes.
//!
//! ```text
//! volume                     what never changes: the UUID and the size of an object
//! e/EPOCH/open               the claim of a writer
//! e/EPOCH/SEQUENCE           a segment: a header with records, then ciphertext; or a fence
//! m/EPOCH/NUMBER/root        a checkpoint: the position in the log that it describes; or a fence
//! m/EPOCH/NUMBER/index       of a checkpoint: where the leaves are, the segments, the snapshots
//! m/EPOCH/NUMBER/PACK        of a checkpoint: leaves of the map
//! ```
//!
//! Every object is created once, and no object is ever overwritten. So a name that is taken stays
//! with its first creator. The log of an epoch is the segments 1, 2, 3, … up to the first fence;
//! objects after the fence do not count. Numbers are big-endian. Every object but a pack begins
//! with the frame of [`frame`], which has a checksum; a leaf in a pack has its own.
//!
//! Checksums find damage. They do not stop an attacker who can write to the store, since there is
//! no key in them.

pub mod checkpoint;
pub mod claim;
pub mod frame;
pub mod journal;
pub mod leaf;
pub mod name;
pub mod segment;
#[cfg(test)]
mod tests;
pub mod uri;
pub mod volume;

use crate::codec::{Reader, Writer};
use crate::error::FormatError;

/// The unit of the map in bytes. A segment has whole blocks.
pub const BLOCK: u64 = 4096;

/// The bytes of a UUID.
pub type Uuid = [u8; 16];

/// A place in the log of all epochs: all segments before it, and the one there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The epoch, from 1 on.
    pub epoch: u32,
    /// The sequence number in the epoch, from 1 on; 0 is before the first segment.
    pub sequence: u64,
}

/// A checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootId {
    /// The epoch of the writer that made it.
    pub epoch: u32,
    /// Its number in this epoch, from 1 on.
    pub number: u32,
}

impl Position {
    fn read(reader: &mut Reader<'_>, field: &str) -> Result<Self, FormatError> {
        Ok(Self {
            epoch: reader.u32(field)?,
            sequence: reader.u64(field)?,
        })
    }

    fn write(self, writer: &mut Writer) {
        writer.u32(self.epoch).u64(self.sequence);
    }
}

impl RootId {
    fn read(reader: &mut Reader<'_>, field: &str) -> Result<Option<Self>, FormatError> {
        let offset = reader.offset();
        match (reader.u32(field)?, reader.u32(field)?) {
            (0, 0) => Ok(None),
            (0, _) | (_, 0) => Err(FormatError::malformed(
                field,
                offset,
                "has a part that is 0",
            )),
            (epoch, number) => Ok(Some(Self { epoch, number })),
        }
    }

    fn write(root: Option<Self>, writer: &mut Writer) {
        let (epoch, number) = root.map_or((0, 0), |root| (root.epoch, root.number));
        writer.u32(epoch).u32(number);
    }
}
