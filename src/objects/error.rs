//! Why a volume in an object store cannot be used.

use std::io;

use luksmith_formats::FormatError;

use super::store::StoreError;
use crate::backend::{IoError, Operation};

/// Why a volume in an object store cannot be created, opened or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectsError {
    /// The store failed.
    #[error("the object {name}")]
    Store {
        /// The object's name, below the prefix of the volume.
        name: String,
        /// What the store answers.
        source: StoreError,
    },
    /// An object is malformed, or needs a feature that is not known.
    #[error("the object {name} is not usable")]
    Format {
        /// The object's name, below the prefix of the volume.
        name: String,
        /// What is wrong.
        source: FormatError,
    },
    /// An object is missing, or does not fit the others.
    #[error("the object {name} {cause}")]
    Damaged {
        /// The object's name, below the prefix of the volume.
        name: String,
        /// What is wrong.
        cause: &'static str,
    },
    /// There is no volume of this name.
    #[error("there is no volume")]
    Absent,
    /// There is a volume of this name already.
    #[error("there is a volume already")]
    Exists,
    /// There are objects, but no volume.
    #[error("there is no volume, but other objects are in its place, such as {name}")]
    Occupied {
        /// The name of one of them, below the prefix.
        name: String,
    },
    /// The last writer has not closed the volume: it still works, or was killed.
    #[error("the volume was not closed by its writer on host '{host}', which may still run")]
    Busy {
        /// The writer's host.
        host: String,
        /// When it opened the volume, in seconds since 1970.
        time: u64,
    },
    /// Another writer has taken over the volume.
    #[error("another writer has taken over the volume")]
    Fenced,
    /// The store has created an object twice.
    #[error("the object store overwrites objects although it is asked not to (If-None-Match)")]
    Overwrites,
    /// The volume's flushes are kept in a journal, and the writer names none; or the other way
    /// round.
    #[error("{}", match .wanted {
        true => "flushes of the volume are kept in a journal, and no file is named for it",
        false => "flushes of the volume are kept in the store, and not in a journal",
    })]
    JournalMode {
        /// Whether the volume has a journal.
        wanted: bool,
    },
    /// The last writer has not closed the volume, and its journal is not this one: what only that
    /// has would be lost.
    #[error(
        "the writer on host '{host}' has not closed the volume, and what it flushed last may be in \
         another journal than this one"
    )]
    JournalLost {
        /// The writer's host.
        host: String,
    },
    /// The file for a journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The file for a cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// There is no snapshot of this name.
    #[error("there is no snapshot of this name")]
    NoSnapshot,
    /// There is a snapshot of this name.
    #[error("there is a snapshot of this name already")]
    SnapshotExists,
    /// A snapshot has no such name.
    #[error("a snapshot's name has at most 64 letters, digits, '.', '_' and '-'")]
    SnapshotName,
    /// The volume, or the snapshot, is open for reading only.
    #[error("it is open for reading only")]
    ReadOnly,
    /// What was not flushed was given up.
    #[error("the work on it was given up")]
    Abandoned,
    /// An earlier failure makes every later call fail: data may be lost that was not flushed.
    #[error("an earlier request failed: {0}")]
    Failed(String),
}

impl From<io::Error> for ObjectsError {
    fn from(error: io::Error) -> Self {
        Self::of_journal(error)
    }
}

impl ObjectsError {
    pub(super) fn of_journal(source: io::Error) -> Self {
        let path = "of the volume".to_owned();
        JournalError::File { path, source }.into()
    }

    pub(super) fn missing(name: &str) -> Self {
        Self::damaged(name, "is missing")
    }

    pub(super) fn damaged(name: &str, cause: &'static str) -> Self {
        let name = name.to_owned();
        Self::Damaged { name, cause }
    }

    /// The same as an error of an operation of the storage.
    pub(super) fn of_operation(self, operation: Operation, offset: u64) -> IoError {
        match self {
            Self::Fenced => IoError::LockLost(operation),
            Self::ReadOnly => IoError::ReadOnly(operation),
            Self::Store {
                source: StoreError::Denied(_),
                ..
            } => {
                let denied = io::Error::new(io::ErrorKind::PermissionDenied, self);
                IoError::from_os(operation, offset, denied)
            }
            other => IoError::from_os(operation, offset, io::Error::other(other)),
        }
    }
}

/// Why a file cannot be a cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The file cannot be opened, or locked.
    #[error("the cache {path} cannot be used")]
    File {
        /// The path of the file.
        path: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path} is no cache of luksmith, and would be overwritten")]
    Other {
        /// The path of the file.
        path: String,
    },
}

/// Why a file cannot be the journal of a volume.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file cannot be opened, locked, read or written.
    #[error("the journal {path} cannot be used")]
    File {
        /// The path of the file.
        path: String,
        /// The error of the system.
        source: io::Error,
    },
    /// Data that was flushed cannot be read, and later data can.
    #[error("the journal {path} is damaged at byte {at}, and what was flushed there is lost")]
    Damaged {
        /// The path of the file.
        path: String,
        /// Where the damage begins.
        at: u64,
    },
    /// It is the journal of another volume.
    #[error("{path} is the journal of another volume, and is not touched")]
    OfAnother {
        /// The path of the file.
        path: String,
    },
    /// The file holds something else.
    #[error("{path} is no journal of luksmith, and would be overwritten")]
    Other {
        /// The path of the file.
        path: String,
    },
}

/// Why a volume failed for good.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    Fenced,
    Abandoned,
    Store(String),
}

impl From<&ObjectsError> for Failure {
    fn from(error: &ObjectsError) -> Self {
        match error {
            ObjectsError::Fenced => Self::Fenced,
            ObjectsError::Abandoned => Self::Abandoned,
            other => Self::Store(crate::backend::chain(other)),
        }
    }
}

impl From<Failure> for ObjectsError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Fenced => Self::Fenced,
            Failure::Abandoned => Self::Abandoned,
            Failure::Store(text) => Self::Failed(text),
        }
    }
}
