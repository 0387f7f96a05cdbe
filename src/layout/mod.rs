//! Where in the storage each byte of a volume lies, and which IV its sector has.
//!
//! That is decided before a sector is encrypted, since the IV may follow the place: in an encrypted qcow2 image it is the place.
//! This module moves ciphertext's places, never its bytes, and knows no key.

pub(crate) mod linear;
pub mod qcow2;

use std::sync::Arc;

pub use qcow2::{ImageError, NewImage, Qcow2};

use crate::backend::Backend;
use linear::Linear;

/// Where a volume's sectors lie; which of these is decided when it is opened.
#[derive(Debug)]
pub(crate) enum Layout {
    /// One after the other.
    Linear(Linear),
    /// In the clusters of an image.
    Qcow2(Arc<Qcow2>),
}

impl Layout {
    /// The storage below.
    pub(crate) fn storage(&self) -> &Arc<dyn Backend> {
        match self {
            Self::Linear(linear) => &linear.storage,
            Self::Qcow2(image) => image.storage(),
        }
    }
}
