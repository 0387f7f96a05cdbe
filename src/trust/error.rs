//! Why a volume is not trusted, or cannot be pinned.

use std::io;

use luksmith_formats::trust::pin::{Difference, Place};
use thiserror::Error;

use crate::backend::IoError;
use crate::secret::LockError;

/// Why a volume is not trusted, or its pin cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Nothing is kept of the volume.
    #[error("volume {uuid} is not known in {dir}")]
    NotKnown {
        /// The UUID in the header.
        uuid: String,
        /// The folder of the state.
        dir: String,
    },
    /// Another volume is pinned at this place: the storage hands out another header, or the UUID
    /// in it was changed.
    #[error("{place} is pinned as volume {pinned}, and its header is that of volume {found}")]
    OtherVolume {
        /// The place.
        place: Box<Place>,
        /// The UUID that is pinned.
        pinned: String,
        /// The UUID in the header.
        found: String,
    },
    /// The volume is pinned at another place.
    #[error("volume {uuid} is pinned at {pinned}, and its header is at {found}")]
    Elsewhere {
        /// The UUID in the header.
        uuid: String,
        /// The place that is pinned.
        pinned: Box<Place>,
        /// The place at which the header was found.
        found: Box<Place>,
    },
    /// The header is not as it is pinned.
    #[error("the header is not as it is pinned: {}", words(.0))]
    Changed(Vec<Difference>),
    /// The volume key is not the one that is pinned.
    #[error("the volume key is not the one that is pinned")]
    OtherKey,
    /// The change would give the volume another UUID or another volume key than the pinned one.
    #[error("this change is not possible with a pin: {0}")]
    NotKept(&'static str),
    /// The volume is pinned already.
    #[error("volume {uuid} is pinned already")]
    Pinned {
        /// Its UUID.
        uuid: String,
    },
    /// Another process has changed the pin, or is changing it.
    #[error("another process changes the pin of volume {uuid}")]
    Busy {
        /// The UUID.
        uuid: String,
    },
    /// The UUID in the header is not in the form of a UUID.
    #[error("the header has no UUID in the usual form, by which it could be pinned")]
    Uuid,
    /// The pin is not complete, or of an unknown format.
    #[error("the pin of volume {uuid} is damaged: {why}")]
    Damaged {
        /// The UUID.
        uuid: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The folder of the state, or a file in it, cannot be used.
    #[error("cannot use {dir} for trusted state")]
    Dir {
        /// Its path.
        dir: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key material cannot be read.
    #[error("cannot read the key material")]
    Io(#[from] IoError),
    /// Locked memory is short.
    #[error("no locked memory for the fingerprint of the volume key")]
    Memory(#[from] LockError),
}

impl TrustError {
    /// What differs from the pin, in words, if that is why.
    #[must_use]
    pub fn differences(&self) -> &[Difference] {
        match self {
            Self::Changed(differences) => differences,
            _ => &[],
        }
    }
}

fn words(differences: &[Difference]) -> String {
    let words: Vec<_> = differences.iter().map(ToString::to_string).collect();
    words.join("; ")
}
