//! Why a reencryption cannot go on.

use luksmith_formats::FormatError;
use thiserror::Error;

use crate::backend::IoError;
use crate::container::{CommitError, ReencryptionError};
use crate::crypt::CryptError;
use crate::kdf::KdfError;
use crate::secret::SecretError;

/// Why a reencryption cannot go on. What is converted stays converted, and it can be taken up
/// again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReencryptError {
    /// No reencryption is in progress.
    #[error("no reencryption is in progress")]
    NotPending,
    /// Zones are left.
    #[error("some of the data is not converted")]
    Unfinished,
    /// The header has a reencryption that is not supported.
    #[error("the reencryption in the header cannot be used")]
    Format(#[source] FormatError),
    /// A block of the zone that was being converted is neither what was there before nor what it
    /// is converted to.
    #[error(
        "block {block} of {size} bytes, at byte {at} of the volume, is neither old nor converted \
         ({count} such blocks)"
    )]
    Unverified {
        /// The number of the block in its zone.
        block: u64,
        /// The size of a block in bytes.
        size: u64,
        /// The offset of the block in the volume, in bytes.
        at: u64,
        /// How many such blocks there are.
        count: u64,
        /// Whether a journal has the old content of the block.
        journaled: bool,
    },
    /// The size of the data is not a whole number of the blocks that are converted.
    #[error("the volume has {size} bytes, which are not whole blocks of {unit}")]
    SizeNotWhole {
        /// The size of the data in bytes.
        size: u64,
        /// The size of a block in bytes.
        unit: u64,
    },
    /// The zones are smaller than a block.
    #[error("a zone has to have at least {unit} bytes")]
    ZoneTooSmall {
        /// The size of a block in bytes.
        unit: u64,
    },
    /// How the zones are protected is not supported.
    #[error("a reencryption with this resilience is not supported")]
    Resilience,
    /// Plaintext is encrypted in place, and a journal would be another copy of it.
    #[error("a journal of data that is encrypted in place would be a copy of its plaintext")]
    JournalOfPlaintext,
    /// Clients would write to plaintext.
    #[error("the data is being encrypted in place, and is only read meanwhile")]
    OnlyOffline,
    /// This build does not have the hash of the checksums.
    #[error("the checksums of the zones cannot be computed")]
    Hash(#[source] KdfError),
    /// The storage of the data ends before the data does.
    #[error("the storage is {size} bytes long, the data needs {needed}")]
    TooSmall {
        /// The size that was found, in bytes.
        size: u64,
        /// The size that is needed, in bytes.
        needed: u64,
    },
    /// The header is detached, and its storage was passed as the storage of the data.
    #[error("the header is detached: the data is elsewhere")]
    Detached,
    /// The header could not be changed.
    #[error("cannot change the header")]
    Header(#[from] ReencryptionError),
    /// The copies of the header could not be made equal.
    #[error("cannot write the header")]
    Commit(#[source] CommitError),
    /// A cipher refused its key.
    #[error("the cipher cannot be set up")]
    Crypt(#[from] CryptError),
    /// Random bytes are not available.
    #[error("cannot make random bytes")]
    Secret(#[from] SecretError),
    /// A thread panicked.
    #[error("a thread of the reencryption has failed")]
    Thread,
    /// The storage failed.
    #[error("the storage failed")]
    Io(#[from] IoError),
}
