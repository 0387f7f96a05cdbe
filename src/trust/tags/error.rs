//! Why the tags of a volume cannot be used.

use std::io;

use luksmith_formats::FormatError;

use crate::backend::{IoError, Operation};
use crate::secret::LockError;

/// Why the tags of a volume cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TagsError {
    /// There are none.
    #[error("the volume has no tags")]
    Missing,
    /// There are some already.
    #[error("the volume has tags already")]
    Exists,
    /// Another process uses them.
    #[error("another process uses the tags")]
    Busy,
    /// A file of the store cannot be read or written.
    #[error("{name}: a file of tags cannot be used")]
    File {
        /// Its name.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The head of the tags is damaged.
    #[error("the head of the tags is damaged")]
    Head(#[from] FormatError),
    /// The tags were made with another volume key, or for another volume.
    #[error("the tags are of another volume key")]
    OtherKey,
    /// The storage has fewer bytes of the volume than it had.
    #[error("the storage has {found} bytes of the volume, and had {known}: it was truncated")]
    Truncated {
        /// The bytes that have tags.
        known: u64,
        /// The bytes that the storage has.
        found: u64,
    },
    /// The storage is read in larger units than those that have tags.
    #[error("the storage is read in units of {0} bytes, and a tag is for 4096")]
    Unit(u32),
    /// The log could not be written before, or a flush in the background has failed.
    #[error("the tags cannot be kept up: {0}")]
    Failed(String),
    /// The storage failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Locked memory is short.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl TagsError {
    /// The error of a request that failed with this one.
    pub(super) fn of(self, operation: Operation, offset: u64) -> IoError {
        match self {
            Self::Io(error) => error,
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                IoError::NoSpace { operation, offset }
            }
            error => IoError::Failed {
                operation,
                offset,
                source: io::Error::other(error),
            },
        }
    }
}
