//! The undo record: the old bytes of a change that overwrites in place, kept beside the image until
//! the change is durable.
//!
//! LUKS1 has one copy of its header and fixed keyslots, so a few changes cannot be made safe inside
//! of the image: a change of a passphrase when all keyslots are full, restoring a backup, and
//! conversion. The record contains the old bytes of all ranges that the change writes. These are
//! headers and encrypted key material, so it deserves the same care as a header backup. It also
//! contains hashes of the new bytes, so that a repair notices changes that other programs made
//! since. It is written and synced before the first write. It is removed, and the removal synced,
//! after the last one. While it exists, the container only opens for repair.

mod parts;
mod record;
mod settle;

use std::fmt;
use std::io;
use std::sync::Arc;

pub(super) use record::{UndoRecord, is_record, is_remnant};
pub(crate) use settle::discard;
pub(super) use settle::settle;
pub use settle::{Settled, Unproven};

/// How the record of a move begins, which [`reencrypt`](crate::reencrypt) makes before plaintext is
/// encrypted in place. Only that module ends such a move.
pub(crate) const ROOM_MAGIC: &[u8; 16] = b"luksmith room 1\n";

/// A place where an undo record survives a power failure. Each call returns after its effect is
/// durable.
pub trait UndoStore: Send + Sync {
    /// Reads the record, if there is one.
    ///
    /// # Errors
    /// Returns an error if the place cannot be read.
    fn load(&self) -> io::Result<Option<Vec<u8>>>;
    /// Writes the record durably and atomically.
    ///
    /// # Errors
    /// Returns an error if the place cannot be written. There is no record then.
    fn save(&self, record: &[u8]) -> io::Result<()>;
    /// Removes the record durably. It succeeds if there is no record.
    ///
    /// # Errors
    /// Returns an error if the record cannot be removed.
    fn clear(&self) -> io::Result<()>;
    /// Keeps these bytes beside the record, under a name that did not exist, and returns the name.
    /// The record stays.
    ///
    /// # Errors
    /// Returns an error if the copy cannot be written. Neither the header nor the record is changed
    /// then.
    fn keep_copy(&self, what: Kept, bytes: &[u8]) -> io::Result<String>;
    /// A name for messages, such as a path.
    fn name(&self) -> String;
}

/// What is kept before a choice of the caller overwrites or removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// The bytes of a header, as in a header backup.
    Header,
    /// An undo record.
    Record,
}

/// Where the undo record of a container is kept, and where the record of an interrupted change may
/// be.
///
/// A header in the middle of a change must not be used. With a store,
/// [`Container::open`](super::Container::open) refuses a container that has a record, with
/// [`OpenError::Interrupted`](super::OpenError::Interrupted), until
/// [`Container::repair`](super::Container::repair) has ended the change.
#[derive(Clone)]
pub enum Undo {
    /// The record is in this store.
    Store(Arc<dyn UndoStore>),
    /// Records are neither looked for nor kept. A change that needs one is refused with
    /// [`CommitError::NeedsUndo`](super::CommitError::NeedsUndo).
    NotLookedFor,
}

impl Undo {
    /// The store, if there is one.
    #[must_use]
    pub fn store(&self) -> Option<&dyn UndoStore> {
        match self {
            Self::Store(store) => Some(&**store),
            Self::NotLookedFor => None,
        }
    }
}

impl<S: UndoStore + 'static> From<S> for Undo {
    fn from(store: S) -> Self {
        Self::Store(Arc::new(store))
    }
}

impl fmt::Debug for Undo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(store) => formatter.debug_tuple("Store").field(&store.name()).finish(),
            Self::NotLookedFor => formatter.write_str("NotLookedFor"),
        }
    }
}
