//! What can go wrong with a container: one enum for each operation, each naming what happened and nothing secret.

use std::io;

use luksmith_formats::FormatError;
use luksmith_formats::cipher::CipherError;
use thiserror::Error;

use crate::backend::IoError;
use crate::crypt::CryptError;
use crate::kdf::KdfError;
use crate::secret::{LockError, SecretError};

/// Opening a container: reading and validating its header.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Neither LUKS1 nor LUKS2 begins here.
    #[error("no LUKS header found")]
    NotLuks,
    /// The header is malformed, of an unsupported kind, or asks for more than the limits allow.
    #[error("the header is not valid")]
    Header(#[source] FormatError),
    /// LUKS2: neither copy is valid. The source is what is wrong with the primary one.
    #[error("both copies of the LUKS2 header are damaged; the secondary one: {secondary}")]
    BothCopies {
        /// What is wrong with the primary copy.
        #[source]
        primary: Box<FormatError>,
        /// What is wrong with the secondary copy.
        secondary: Box<FormatError>,
    },
    /// The storage ends before the header or the keyslots area that it describes.
    #[error("the image is {size} bytes long, its header describes {needed}")]
    TooSmall {
        /// What is there.
        size: u64,
        /// What would have to be there.
        needed: u64,
    },
    /// A change was interrupted and its undo record is still there.
    #[error("a change of the header was interrupted; its undo record is {undo}")]
    Interrupted {
        /// The record's name.
        undo: String,
    },
    /// Where an undo record would be kept, there is something else.
    #[error("{undo} is there already, and is no undo record")]
    NoUndo {
        /// The name of what is there.
        undo: String,
    },
    /// Reading the storage failed.
    #[error("cannot read the header")]
    Io(#[from] IoError),
    /// The undo record could not be looked at.
    #[error("cannot read the undo record")]
    Undo(#[source] io::Error),
}

/// Unlocking: finding the keyslot that a passphrase opens.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnlockError {
    /// No keyslot that was tried opens with this passphrase.
    #[error("no keyslot opens with this passphrase")]
    WrongPassphrase,
    /// The keyslot that was asked for is not in use.
    #[error("keyslot {0} is not in use")]
    NoSuchKeyslot(u32),
    /// There is no keyslot to try.
    #[error("no keyslot is in use")]
    NoKeyslots,
    /// Deriving the key failed, was refused for its cost, or was interrupted.
    #[error("cannot derive the key of keyslot {slot}")]
    Kdf {
        /// The keyslot.
        slot: u32,
        /// Why.
        #[source]
        source: KdfError,
    },
    /// A keyslot or digest asks for something that is not supported.
    #[error("keyslot {slot} cannot be used")]
    Unsupported {
        /// The keyslot.
        slot: u32,
        /// Why.
        #[source]
        source: FormatError,
    },
    /// The keyslot's cipher refused its key.
    #[error("the cipher cannot be set up")]
    Crypt(#[from] CryptError),
    /// There is no locked memory for the key.
    #[error("no locked memory for the key")]
    Memory(#[from] LockError),
    /// Reading the key material failed.
    #[error("cannot read the key material")]
    Io(#[from] IoError),
}

/// Making the plaintext device of an unlocked container.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The key is not the volume key of this container: it is a wrong one, another container's, or that of an
    /// unbound keyslot.
    #[error("the key is not this container's volume key")]
    WrongKey,
    /// The container asks for something that data access cannot give (pending reencryption, several segments, …).
    #[error("the data cannot be opened: {0}")]
    Unsupported(String),
    /// The header is detached, and where the data is was not said.
    #[error("the header is detached: the data lies elsewhere")]
    Detached,
    /// The data's storage ends before the segment that the header describes.
    #[error("the storage is {size} bytes long, the segment needs {needed}")]
    TooSmall {
        /// What is there.
        size: u64,
        /// What would have to be there.
        needed: u64,
    },
    /// The digest of the volume key could not be computed.
    #[error("cannot verify the volume key")]
    Kdf(#[from] KdfError),
    /// The cipher refused the key.
    #[error("the cipher cannot be set up")]
    Crypt(#[from] CryptError),
    /// The data's storage cannot be used with this layout.
    #[error("the storage cannot hold the volume")]
    Io(#[from] IoError),
}

/// Making a new container.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The options contradict each other or the format.
    #[error("{option}: {reason}")]
    Option {
        /// The option's name as on the command line, without dashes.
        option: &'static str,
        /// Why it cannot be so.
        reason: String,
    },
    /// The cipher does not exist or does not take such a key.
    #[error("the cipher is not usable")]
    Cipher(#[from] CipherError),
    /// The storage is too small for the header.
    #[error("the storage is {size} bytes long, the header alone needs {needed}")]
    TooSmall {
        /// What is there.
        size: u64,
        /// What would have to be there.
        needed: u64,
    },
    /// The keyslot could not be made.
    #[error("cannot make the keyslot")]
    Keyslot(#[from] KeyslotError),
    /// The header that came out is not valid.
    #[error("the header that these options ask for is not valid")]
    Header(#[from] FormatError),
    /// No randomness or no locked memory.
    #[error("cannot make the volume key")]
    Secret(#[from] SecretError),
    /// Writing failed.
    #[error("cannot write the header")]
    Commit(#[from] CommitError),
}

/// Adding, changing or removing keyslots.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyslotError {
    /// All keyslots of the container are in use.
    #[error("all {0} keyslots are in use")]
    AllInUse(u32),
    /// The keyslot that was named for the new key is in use.
    #[error("keyslot {0} is in use")]
    InUse(u32),
    /// The keyslot that was named does not exist in this format.
    #[error("keyslot {slot} does not exist: {format} has keyslots 0 to {last}")]
    OutOfRange {
        /// What was asked for.
        slot: u32,
        /// `LUKS1` or `LUKS2`.
        format: &'static str,
        /// The highest number.
        last: u32,
    },
    /// The keyslot that was named is not in use.
    #[error("keyslot {0} is not in use")]
    NotInUse(u32),
    /// The keyslots area has no room for another keyslot.
    #[error("the keyslots area has no free room of {needed} bytes")]
    NoRoom {
        /// Bytes for one more keyslot.
        needed: u64,
    },
    /// The key belongs to another container.
    #[error("the key is not this container's")]
    WrongKey,
    /// It is the last one that opens the volume.
    #[error("keyslot {0} is the last one that opens this volume")]
    Last(u32),
    /// This format or this header has no such thing.
    #[error("not possible here: {0}")]
    Unsupported(String),
    /// The header carries requirements that forbid changes.
    #[error("the header has requirements that forbid changes: {0}")]
    Requirements(String),
    /// Deriving the key failed, or was interrupted.
    #[error("cannot derive a key from the passphrase")]
    Kdf(#[from] KdfError),
    /// The header that would come out is not valid.
    #[error("the header that would come out is not valid")]
    Header(#[from] FormatError),
    /// The cipher refused its key.
    #[error("the cipher cannot be set up")]
    Crypt(#[from] CryptError),
    /// No randomness.
    #[error("cannot make the key material")]
    Secret(#[from] SecretError),
    /// No locked memory.
    #[error("no locked memory for the key")]
    Memory(#[from] LockError),
    /// Writing failed.
    #[error("cannot write the header")]
    Commit(#[from] CommitError),
}

/// Header backup, restore, repair, erase, conversion, resizing, tokens and configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file is not a header backup that can be restored.
    #[error("the backup is not a valid header")]
    Backup(#[source] OpenError),
    /// The backup is of another version, data offset or size than what is there.
    #[error("the backup does not fit: {0}")]
    Mismatch(String),
    /// The backup belongs to another volume.
    #[error("the backup's UUID is {backup}, the volume's {}", volume.as_deref().unwrap_or("cannot be read"))]
    OtherUuid {
        /// In the backup.
        backup: String,
        /// On the volume, if a header can be read there.
        volume: Option<String>,
    },
    /// This cannot be done with this header.
    #[error("not possible here: {0}")]
    Unsupported(String),
    /// The header carries requirements that forbid changes.
    #[error("the header has requirements that forbid changes: {0}")]
    Requirements(String),
    /// There is no such token.
    #[error("token {0} does not exist")]
    NoSuchToken(u32),
    /// There is a token with this number.
    #[error("token {0} exists")]
    TokenExists(u32),
    /// All token numbers are taken.
    #[error("all 32 tokens are in use")]
    TokensFull,
    /// The header that would come out is not valid.
    #[error("the header that would come out is not valid")]
    Header(#[from] FormatError),
    /// No randomness.
    #[error("cannot make random bytes")]
    Secret(#[from] SecretError),
    /// Opening again failed.
    #[error("cannot open the container")]
    Open(#[from] OpenError),
    /// The storage failed.
    #[error("the storage failed")]
    Io(#[from] IoError),
    /// Writing failed.
    #[error("cannot write the header")]
    Commit(#[from] CommitError),
}

/// Writing a change of metadata.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Somebody else has written the header since it was read.
    #[error("the header has been changed by somebody else since it was read")]
    Changed,
    /// The primary copy of a LUKS2 header is gone, and something else lies in its place.
    #[error("where the primary header should be, there is {0}")]
    Foreign(&'static str),
    /// There is no room to make this change safely inside the image, and no place for an undo record.
    #[error("this change overwrites in place and needs a file for its undo record")]
    NeedsUndo,
    /// Somebody else has the volume open, and the change would reach the data, or need an undo record which they know nothing of.
    #[error("this change cannot be made while another program has the volume open")]
    InUse,
    /// The header to be written does not fit its area.
    #[error("the header does not fit its area")]
    Header(#[from] FormatError),
    /// No randomness for the header's salt or for wiping.
    #[error("cannot make random bytes")]
    Secret(#[from] SecretError),
    /// The storage failed.
    #[error("writing failed")]
    Io(#[from] IoError),
    /// All was written and flushed, and something else is there now.
    #[error("the storage does not hold what was written to it, at byte {offset}")]
    NotKept {
        /// Where that was written, in bytes.
        offset: u64,
    },
    /// The undo record failed.
    #[error("the undo record failed")]
    Undo(#[from] UndoError),
}

/// Keeping or using an undo record.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UndoError {
    /// The record is not whole, or not one of luksmith's.
    #[error("{name} is not a whole undo record")]
    Damaged {
        /// The record's name.
        name: String,
    },
    /// The record was made for another volume.
    #[error("{name} belongs to another volume")]
    OtherImage {
        /// The record's name.
        name: String,
    },
    /// The record cannot be read, written or removed.
    #[error("the undo record cannot be kept")]
    Store(#[from] io::Error),
    /// The image cannot be read or written.
    #[error("the image cannot be rolled back")]
    Storage(#[from] IoError),
}
