//! Images that are not encrypted. They are only read, as the source of a copy.

use std::sync::Arc;

#[cfg(feature = "qcow2-compressed")]
use super::compressed::Inflated;
use super::fixed::Fixed;
use super::map::Map;
use super::run::Stored;
use super::shape::{ImageError, Shape, length};
use crate::backend::{Backend, Geometry, IoError, Operation};
#[cfg(not(feature = "qcow2-compressed"))]
use crate::feature::MissingFeature;
use crate::sectors::{Cipher, Sectors};

/// An opened image that is not encrypted: the disk in it can be read.
///
/// References to other files are refused, as in an encrypted image. Every entry of a table is
/// checked when it is used.
pub struct PlainQcow2 {
    storage: Arc<dyn Backend>,
    map: Map,
    #[cfg(feature = "qcow2-compressed")]
    inflated: Inflated,
    size: u64,
}

impl PlainQcow2 {
    /// Opens an image: reads and validates the header and the L1 table.
    ///
    /// # Errors
    /// Returns [`ImageError`] if the image is refused or cannot be read.
    pub fn open(storage: Arc<dyn Backend>) -> Result<Self, ImageError> {
        let shape = Shape::read_plain(&*storage)?;
        let fixed = Arc::new(Fixed::new(shape.fixed()));
        Ok(Self {
            map: Map::read(&*storage, &shape, fixed)?,
            #[cfg(feature = "qcow2-compressed")]
            inflated: Inflated::new(&shape),
            // QEMU ignores bytes after the last whole sector too.
            size: shape.header.size / 512 * 512,
            storage,
        })
    }

    /// The size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `into` with the bytes of the disk from `offset` on.
    ///
    /// # Errors
    /// A range outside of the disk, damaged tables, and what the storage reports.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        let len = into.len() as u64;
        Geometry::new(self.size).check(Operation::Read, offset, len)?;
        let end = offset + len;
        let (mut at, mut rest) = (offset, into);
        while at < end {
            let run = self.map.run(&*self.storage, at..end)?;
            let (part, after) = rest.split_at_mut(length(run.len).min(rest.len()));
            match run.stored {
                Stored::Nowhere => part.fill(0),
                Stored::Here(place) | Stored::Kept(place) => {
                    self.read_stored(place, part)?;
                }
                Stored::Compressed(compressed, within) => {
                    self.inflate(compressed, within, part)?;
                }
            }
            at += run.len;
            rest = after;
        }
        Ok(())
    }

    /// Reads bytes that the image holds unencrypted.
    fn read_stored(&self, place: u64, into: &mut [u8]) -> Result<(), IoError> {
        let unit = u64::from(self.storage.geometry().block_size.max(1));
        let (first, end) = (place / unit * unit, place + into.len() as u64);
        let len = length(end.next_multiple_of(unit) - first);
        let mut blocks = Sectors::<Cipher>::unencrypted(len);
        self.storage.read_at(first, &mut blocks)?;
        let skip = length(place - first);
        into.copy_from_slice(&blocks.as_slice()[skip..skip + into.len()]);
        Ok(())
    }

    #[cfg(feature = "qcow2-compressed")]
    fn inflate(
        &self,
        compressed: super::Compressed,
        within: u64,
        into: &mut [u8],
    ) -> Result<(), IoError> {
        self.inflated
            .read(&*self.storage, compressed, length(within), into)
    }

    #[cfg(not(feature = "qcow2-compressed"))]
    fn inflate(&self, _: super::Compressed, _: u64, _: &mut [u8]) -> Result<(), IoError> {
        let what = "a compressed cluster";
        Err(MissingFeature::new(what, "qcow2-compressed").into())
    }
}

impl std::fmt::Debug for PlainQcow2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainQcow2")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
