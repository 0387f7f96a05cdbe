//! The layout of a volume: the place of each byte in the storage, and the IV of its sector.
//!
//! The place is found before a sector is encrypted, since the IV may depend on it: in an encrypted
//! qcow2 image the IV is the place. This module computes places of ciphertext. It never handles the
//! bytes of a volume, and knows no key.

pub(crate) mod linear;
pub mod qcow2;

use std::sync::Arc;

pub use qcow2::{ImageError, NewImage, PlainQcow2, Qcow2, Qcow2Header, UsedClusters};

use crate::backend::Backend;
use linear::Linear;

/// The layout of a volume, which is chosen when the volume is opened.
#[derive(Debug)]
pub(crate) enum Layout {
    /// The sectors are consecutive.
    Linear(Linear),
    /// The sectors are in the clusters of an image.
    Qcow2(Arc<Qcow2>),
}

impl Layout {
    /// The storage.
    pub(crate) fn storage(&self) -> &Arc<dyn Backend> {
        match self {
            Self::Linear(linear) => &linear.storage,
            Self::Qcow2(image) => image.storage(),
        }
    }
}
