//! The layout of a volume: the place of each byte in the storage, the IV of its sector, and its
//! cipher.
//!
//! The place is found before a sector is encrypted, since the IV may depend on it: in an encrypted
//! qcow2 image the IV is the place. This module computes places of ciphertext, and says which
//! cipher it has. It never handles the bytes of a volume.

pub(crate) mod integrity;
pub(crate) mod linear;
pub mod qcow2;
pub(crate) mod side;
pub(crate) mod two_sides;

use std::sync::Arc;

pub use qcow2::{ImageError, NewImage, PlainQcow2, Qcow2, Qcow2Header, UsedClusters};

pub use integrity::IntegrityError;

use crate::backend::Backend;
use crate::crypt::SectorCrypt;
use integrity::Tagged;
use linear::Linear;
use two_sides::TwoSides;

/// The layout of a volume, which is chosen when the volume is opened.
#[derive(Debug)]
pub(crate) enum Layout {
    /// The sectors are consecutive.
    Linear(Linear),
    /// The sectors are in the clusters of an image, with one cipher.
    Qcow2(Arc<Qcow2>, SectorCrypt),
    /// The sectors are consecutive, and each has one of two encryptions.
    TwoSides(Arc<TwoSides>),
    /// The sectors are in areas, and have tags.
    Tagged(Box<Tagged>),
}

impl Layout {
    /// The storage.
    pub(crate) fn storage(&self) -> &Arc<dyn Backend> {
        match self {
            Self::Linear(linear) => &linear.storage,
            Self::Qcow2(image, _) => image.storage(),
            Self::TwoSides(sides) => sides.storage(),
            Self::Tagged(tagged) => &tagged.storage,
        }
    }

    /// The offset of consecutive sectors on the storage.
    pub(crate) fn start(&self) -> Option<u64> {
        match self {
            Self::Linear(linear) => Some(linear.side.start),
            Self::Qcow2(..) | Self::Tagged(_) => None,
            Self::TwoSides(sides) => Some(sides.start()),
        }
    }

    /// The size of a sector, in bytes: the larger one of two.
    pub(crate) fn sector_size(&self) -> u32 {
        match self {
            Self::Linear(linear) => linear.side.crypt.sector_size(),
            Self::Qcow2(_, crypt) => crypt.sector_size(),
            Self::TwoSides(sides) => sides.sector_size(),
            Self::Tagged(tagged) => tagged.crypt.sector_size(),
        }
    }
}
