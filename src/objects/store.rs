//! An object store, as the caller implements it.

use std::ops::Range;
use std::sync::Arc;

use super::requests::{Sent, count};

/// A store of objects, below one prefix. A name has at most one object, and its bytes never change.
///
/// Calls block, and may come from several threads at the same time.
pub trait Store: Send + Sync {
    /// Creates an object from these parts, unless there is one of this name. Whichever of several
    /// calls is first, the others get [`Creation::Exists`].
    ///
    /// # Errors
    /// After an error the object may have been created, or may be created later.
    fn create(&self, name: &str, parts: &[&[u8]]) -> Result<Creation, StoreError>;

    /// Reads the bytes of a range. Fewer bytes are returned if the object ends before the range
    /// does, and `None` if there is no object.
    ///
    /// # Errors
    /// What the store answers.
    fn read(&self, name: &str, range: Range<u64>) -> Result<Option<Vec<u8>>, StoreError>;

    /// Deletes an object, if it is there.
    ///
    /// # Errors
    /// What the store answers.
    fn remove(&self, name: &str) -> Result<(), StoreError>;

    /// The names that begin with `prefix`, and the sizes of their objects in bytes. The answer may
    /// be old.
    ///
    /// # Errors
    /// What the store answers.
    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError>;
}

/// A store that overwrites objects: whether there is one of the name is asked first. Two clients
/// that ask at the same time both create theirs.
pub(super) struct Asked {
    pub(super) store: Arc<dyn Store>,
    pub(super) sent: Arc<Sent>,
}

impl Store for Asked {
    fn create(&self, name: &str, parts: &[&[u8]]) -> Result<Creation, StoreError> {
        count(&self.sent.reads);
        match self.store.read(name, 0..1)? {
            Some(_) => Ok(Creation::Exists),
            None => self.store.create(name, parts),
        }
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.read(name, range)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.store.remove(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        self.store.list(prefix)
    }
}

/// What became of a creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// The object was created.
    Created,
    /// There was an object of this name.
    Exists,
}

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store has never answered.
    #[error("the object store cannot be reached")]
    NoService(#[source] std::io::Error),
    /// There was no answer.
    #[error("no answer from the object store")]
    Unreachable(#[source] std::io::Error),
    /// The store refused it for now: it is overloaded, or another request is in its way.
    #[error("the object store answers {status} {code}")]
    Temporary {
        /// The status of HTTP.
        status: u16,
        /// The store's name for the error.
        code: String,
    },
    /// The access key is wrong, or may not do this.
    #[error("the object store denies access: {0}")]
    Denied(String),
    /// There is no such bucket.
    #[error("there is no such bucket")]
    NoBucket,
    /// The store does not know the request.
    #[error("the object store answers {status} {code}")]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// The store's name for the error.
        code: String,
    },
    /// The answer makes no sense.
    #[error("the object store answers with {0}")]
    Answer(&'static str),
}

impl StoreError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Temporary { .. })
    }
}
