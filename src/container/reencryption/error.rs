//! Why a reencryption cannot begin or go on.

use luksmith_formats::FormatError;
use thiserror::Error;

use crate::container::{CommitError, CreateError, KeyslotError, UnlockError, VolumeError};
use crate::kdf::KdfError;
use crate::secret::{LockError, SecretError};

/// Why the header of a volume does not let a reencryption begin or go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReencryptionError {
    /// The format has no reencryption.
    #[error("LUKS1 has no reencryption in place")]
    Luks1,
    /// No reencryption is in progress.
    #[error("no reencryption is in progress")]
    NotPending,
    /// The header has a reencryption that is not supported, or the new state does not fit.
    #[error("the metadata of the reencryption cannot be used")]
    Format(#[from] FormatError),
    /// The digest that protects the metadata of the reencryption does not match.
    #[error("the metadata of the reencryption was changed: its digest does not match")]
    Unverified,
    /// No passphrase opens a keyslot of the old key.
    #[error("no passphrase opens a keyslot of the old volume key")]
    OldKey,
    /// No passphrase opens a keyslot of the new key.
    #[error("no passphrase opens a keyslot of the new volume key")]
    NewKey,
    /// The keyslots area has no room.
    #[error("the keyslots area has no free room of {needed} bytes for {what}")]
    NoRoom {
        /// What needs the room.
        what: &'static str,
        /// The size in bytes.
        needed: u64,
    },
    /// There are too many keyslots or digests.
    #[error("the header has no free {what}")]
    NoNumber {
        /// What there are too many of.
        what: &'static str,
    },
    /// The metadata of a later step would not fit its area.
    #[error("the metadata of the reencryption does not fit the header")]
    NoSpaceInHeader(#[source] FormatError),
    /// Plaintext is encrypted in place, and a journal would be another copy of it.
    #[error("a journal of data that is encrypted in place would be a copy of its plaintext")]
    JournalOfPlaintext,
    /// A key could not be unlocked.
    #[error("cannot unlock")]
    Unlock(#[from] UnlockError),
    /// The header of a new volume could not be made.
    #[error("cannot make the header")]
    Create(#[from] CreateError),
    /// A keyslot could not be made.
    #[error("cannot make the keyslots of the new key")]
    Keyslot(#[from] KeyslotError),
    /// The data cannot be used.
    #[error("the data cannot be used")]
    Volume(#[from] VolumeError),
    /// A digest could not be computed.
    #[error("cannot compute a digest")]
    Kdf(#[from] KdfError),
    /// A key could not be made.
    #[error("cannot make the new volume key")]
    Secret(#[from] SecretError),
    /// Locked memory for a key could not be allocated.
    #[error("no locked memory for the keys")]
    Memory(#[from] LockError),
    /// Writing failed.
    #[error("cannot write the header")]
    Commit(#[from] CommitError),
}
