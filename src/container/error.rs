//! The errors of containers, with one enum for each group of operations. They contain nothing
//! secret.

use std::io;

use luksmith_formats::FormatError;
use luksmith_formats::cipher::CipherError;
use thiserror::Error;

use super::Remains;
use crate::backend::IoError;
use crate::crypt::CryptError;
use crate::kdf::KdfError;
use crate::layout::IntegrityError;
use crate::secret::{LockError, SecretError};
use crate::trust::TrustError;

/// Why a container cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The storage has neither a LUKS1 nor a LUKS2 header.
    #[error("no LUKS header found")]
    NotLuks,
    /// The header of an image in Ceph that is a clone and has a volume key of its own. Only librbd
    /// opens it: the data of the parent that the clone still shares has another key.
    #[error("the header is of a cloned image in ceph that has a volume key of its own")]
    CloneInCeph,
    /// The header cannot be used as it is, but enough of it is left for a repair; see
    /// [`Mend`](super::Mend).
    #[error("{0}")]
    Remains(Remains),
    /// LUKS2: the checksum of the metadata is valid, so it is as a program wrote it, but it breaks
    /// a rule without which it has no meaning here. It is not damaged.
    #[error(
        "the header is not supported: its checksum is valid, but its metadata is not understood"
    )]
    NotUnderstood(#[source] FormatError),
    /// The header is malformed, not supported, or asks for more than the limits allow.
    #[error("the header is not valid")]
    Header(#[source] FormatError),
    /// LUKS2: neither copy is valid. The source is the error of the primary one.
    #[error("both copies of the LUKS2 header are damaged; the secondary one: {secondary}")]
    BothCopies {
        /// What is wrong with the primary copy.
        #[source]
        primary: Box<FormatError>,
        /// What is wrong with the secondary copy.
        secondary: Box<FormatError>,
    },
    /// The storage ends before the header or its keyslots area.
    #[error("the image is {size} bytes long, its header describes {needed}")]
    TooSmall {
        /// The size that was found, in bytes.
        size: u64,
        /// The size that is needed, in bytes.
        needed: u64,
    },
    /// A change was interrupted, and its undo record is still there.
    #[error("a change of the header was interrupted; its undo record is {undo}")]
    Interrupted {
        /// The record's name.
        undo: String,
    },
    /// There is something else in the place of the undo record.
    #[error("{undo} exists, and is not an undo record")]
    NoUndo {
        /// The name of what is there.
        undo: String,
    },
    /// Reading the storage failed.
    #[error("cannot read the header")]
    Io(#[from] IoError),
    /// The undo record could not be read.
    #[error("cannot read the undo record")]
    Undo(#[source] io::Error),
    /// The header is not as it is pinned, or there is no pin of it.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Why a passphrase does not unlock a container.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnlockError {
    /// None of the tried keyslots opens with this passphrase.
    #[error("no keyslot opens with this passphrase")]
    WrongPassphrase,
    /// The requested keyslot is not in use.
    #[error("keyslot {0} is not in use")]
    NoSuchKeyslot(u32),
    /// No keyslot is in use.
    #[error("no keyslot is in use")]
    NoKeyslots,
    /// Each keyslot that is in use has the priority `ignore`, so it is tried only by its number.
    #[error("all keyslots in use have the priority ignore")]
    OnlyIgnored,
    /// The key derivation failed, was refused for its cost, or was interrupted.
    #[error("cannot derive the key of keyslot {slot}")]
    Kdf {
        /// The keyslot.
        slot: u32,
        /// Why.
        #[source]
        source: KdfError,
    },
    /// A keyslot or a digest needs something that is not supported.
    #[error("keyslot {slot} cannot be used")]
    Unsupported {
        /// The keyslot.
        slot: u32,
        /// Why.
        #[source]
        source: FormatError,
    },
    /// The cipher of the keyslot refused its key.
    #[error("the cipher cannot be set up")]
    Crypt(#[from] CryptError),
    /// Locked memory for the key could not be allocated.
    #[error("no locked memory for the key")]
    Memory(#[from] LockError),
    /// The key material could not be read.
    #[error("cannot read the key material")]
    Io(#[from] IoError),
    /// The volume key is not the one that is pinned.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Why the volume of an unlocked container cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The key is not the volume key of this container: it is wrong, or belongs to another
    /// container or to an unbound keyslot.
    #[error("the key is not this container's volume key")]
    WrongKey,
    /// The data needs something that is not supported, such as a pending reencryption or several
    /// segments.
    #[error("the data cannot be opened: {0}")]
    Unsupported(String),
    /// The header is detached, and its storage was passed as the storage of the data.
    #[error("the header is detached: the data is elsewhere")]
    Detached,
    /// The storage of the data ends before the segment that the header describes.
    #[error("the storage is {size} bytes long, the segment needs {needed}")]
    TooSmall {
        /// The size that was found, in bytes.
        size: u64,
        /// The size that is needed, in bytes.
        needed: u64,
    },
    /// The digest of the volume key could not be computed.
    #[error("cannot verify the volume key")]
    Kdf(#[from] KdfError),
    /// The cipher refused the key.
    #[error("the cipher cannot be set up")]
    Crypt(#[from] CryptError),
    /// The storage of the data cannot be used with this layout.
    #[error("the storage cannot hold the volume")]
    Io(#[from] IoError),
    /// What dm-integrity keeps beside the data is damaged, or does not fit the data yet.
    #[error(transparent)]
    Integrity(#[from] IntegrityError),
    /// The volume key is not the one that is pinned.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Why a container cannot be created.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The options contradict each other or the format.
    #[error("{option}: {reason}")]
    Option {
        /// The name of the option as on the command line, without dashes.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The cipher has no keys of this size, or its volumes are only read.
    #[error("the cipher is not usable")]
    Cipher(#[from] CipherError),
    /// The storage is too small for the header.
    #[error("the storage is {size} bytes long, the header alone needs {needed}")]
    TooSmall {
        /// The size that was found, in bytes.
        size: u64,
        /// The size that is needed, in bytes.
        needed: u64,
    },
    /// The keyslot could not be made.
    #[error("cannot make the keyslot")]
    Keyslot(#[from] KeyslotError),
    /// The resulting header is not valid.
    #[error("these options result in a header that is not valid")]
    Header(#[from] FormatError),
    /// Random bytes or locked memory are not available.
    #[error("cannot make the volume key")]
    Secret(#[from] SecretError),
    /// Writing failed.
    #[error("cannot write the header")]
    Commit(#[from] CommitError),
}

/// Why a keyslot cannot be added, changed or removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyslotError {
    /// All keyslots of the container are in use.
    #[error("all {0} keyslots are in use")]
    AllInUse(u32),
    /// The keyslot that was requested for the new key is in use.
    #[error("keyslot {0} is in use")]
    InUse(u32),
    /// The requested keyslot does not exist in this format.
    #[error("keyslot {slot} does not exist: {format} has keyslots 0 to {last}")]
    OutOfRange {
        /// The requested number.
        slot: u32,
        /// `LUKS1` or `LUKS2`.
        format: &'static str,
        /// The highest number.
        last: u32,
    },
    /// The requested keyslot is not in use.
    #[error("keyslot {0} is not in use")]
    NotInUse(u32),
    /// The keyslot with this number is not the one that was looked at or opened before: another
    /// program has removed or changed that one since.
    #[error("keyslot {0} is not the one that was looked at: another program has changed it since")]
    Replaced(u32),
    /// The keyslots area has no room for another keyslot.
    #[error("the keyslots area has no free room of {needed} bytes")]
    NoRoom {
        /// The size of another keyslot, in bytes.
        needed: u64,
    },
    /// The key belongs to another container.
    #[error("the key belongs to another container")]
    WrongKey,
    /// The keyslot is the last one that opens the volume.
    #[error("keyslot {0} is the last one that opens this volume")]
    Last(u32),
    /// This format or this header does not permit the change.
    #[error("not possible here: {0}")]
    Unsupported(String),
    /// The header carries requirements that forbid changes.
    #[error("the header has requirements that forbid changes: {0}")]
    Requirements(String),
    /// The new keyslot would cost more than the limits allow, and would not open without raising
    /// them.
    #[error("the new keyslot would cost too much")]
    Cost(#[source] FormatError),
    /// The key derivation failed, or was interrupted.
    #[error("cannot derive a key from the passphrase")]
    Kdf(#[from] KdfError),
    /// The resulting header is not valid.
    #[error("the resulting header is not valid")]
    Header(#[from] FormatError),
    /// The cipher refused its key.
    #[error("the cipher cannot be set up")]
    Crypt(#[from] CryptError),
    /// Random bytes are not available.
    #[error("cannot make the key material")]
    Secret(#[from] SecretError),
    /// Locked memory for the key could not be allocated.
    #[error("no locked memory for the key")]
    Memory(#[from] LockError),
    /// Writing failed.
    #[error("cannot write the header")]
    Commit(#[from] CommitError),
}

/// Why a header cannot be backed up, restored, repaired, erased, converted or configured, a token
/// cannot be changed, or a volume cannot be resized.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file is not a header backup that can be restored.
    #[error("the backup is not a valid header")]
    Backup(#[source] OpenError),
    /// The backup has another version, data offset or size than the header on the storage.
    #[error("the backup does not fit: {0}")]
    Mismatch(String),
    /// The backup belongs to another volume.
    #[error("the backup's UUID is {backup}, the volume's {}", volume.as_deref().unwrap_or("cannot be read"))]
    OtherUuid {
        /// The UUID in the backup.
        backup: String,
        /// The UUID on the volume, if a header can be read there.
        volume: Option<String>,
    },
    /// The backup is of this volume, but has another volume key, cipher or sector size than the
    /// present header: the data was reencrypted since.
    #[error("the backup is from before a reencryption: it has another volume key or cipher")]
    OtherKey,
    /// The present LUKS2 header is as a program wrote it, since its checksum is valid. It is not
    /// understood here, so a backup must not be written over it.
    #[error("the present header is not damaged: its checksum is valid, but it is not supported")]
    NotUnderstood(#[source] FormatError),
    /// This header does not permit the change.
    #[error("not possible here: {0}")]
    Unsupported(String),
    /// Volumes with this cipher are only read.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// The data is encrypted in sectors of this size, which LUKS1 does not have.
    #[error("the data is encrypted in sectors of {0} bytes, and LUKS1 has sectors of 512 bytes")]
    SectorSize(u32),
    /// Before the data there is something that belongs to no part of the header, and the change
    /// would take its place.
    #[error("there is {what} before the data, at byte {at}, which this change would overwrite")]
    InTheWay {
        /// What it is, with an article.
        what: &'static str,
        /// Its offset, in bytes.
        at: u64,
    },
    /// The volume has a fixed size, and ends before its storage does. It cannot grow over what is
    /// behind it.
    #[error("the volume ends at byte {end}, and behind it are {} more bytes of its storage", size - end)]
    Behind {
        /// The end of the volume, in bytes.
        end: u64,
        /// The size of the storage, in bytes.
        size: u64,
    },
    /// The header carries requirements that forbid changes.
    #[error("the header has requirements that forbid changes: {0}")]
    Requirements(String),
    /// There is no such token.
    #[error("token {0} does not exist")]
    NoSuchToken(u32),
    /// A token with this number exists.
    #[error("token {0} exists")]
    TokenExists(u32),
    /// All token numbers are in use.
    #[error("all 32 tokens are in use")]
    TokensFull,
    /// The resulting header is not valid.
    #[error("the resulting header is not valid")]
    Header(#[from] FormatError),
    /// Random bytes are not available.
    #[error("cannot make random bytes")]
    Secret(#[from] SecretError),
    /// The header could not be opened again after the change.
    #[error("cannot open the container")]
    Open(#[from] OpenError),
    /// The storage failed.
    #[error("the storage failed")]
    Io(#[from] IoError),
    /// Writing failed.
    #[error("cannot write the header")]
    Commit(#[from] CommitError),
}

/// Why a change of metadata was not committed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Another program has changed the header since it was read.
    #[error("another program has changed the header since it was read")]
    Changed,
    /// The primary copy of a LUKS2 header is gone, and other data is in its place.
    #[error("in the place of the primary header there is {0}")]
    Foreign(&'static str),
    /// There is no room to make this change safely inside of the image, and no store for an undo
    /// record.
    #[error("this change overwrites in place and needs a file for its undo record")]
    NeedsUndo,
    /// Another program has the volume open, and the change would reach the data, or would need an
    /// undo record, which that program does not know.
    #[error("this change cannot be made while another program has the volume open")]
    InUse,
    /// The sequence number of a LUKS2 header has its largest value, so a change could not be told
    /// from the state before it.
    #[error("the header has the largest sequence number, and cannot be changed")]
    Sequence,
    /// The new header does not fit in its area.
    #[error("the header does not fit its area")]
    Header(#[from] FormatError),
    /// Random bytes for the salt of the header, or for wiping, are not available.
    #[error("cannot make random bytes")]
    Secret(#[from] SecretError),
    /// The storage failed.
    #[error("writing failed")]
    Io(#[from] IoError),
    /// The storage has no space for a change in place. Nothing was changed.
    #[error("no space can be reserved for this change; nothing was changed")]
    NoRoom(#[source] IoError),
    /// The storage failed in a change in place. All bytes are as before again.
    #[error("writing failed, and the change was rolled back")]
    RolledBack(#[source] IoError),
    /// Everything was written and flushed, but the storage does not contain it.
    #[error("the storage does not hold what was written to it, at byte {offset}")]
    NotKept {
        /// The offset of the write, in bytes.
        offset: u64,
    },
    /// The undo record could not be kept or applied.
    #[error(transparent)]
    Undo(#[from] UndoError),
    /// The pin could not be changed together with the header. Nothing was changed.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Why an undo record cannot be kept or applied. Nothing was changed, except if the image cannot be
/// written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UndoError {
    /// The file is not an undo record.
    #[error("{name} is not an undo record")]
    NoRecord {
        /// The name of what is there.
        name: String,
    },
    /// It is the record of a move of plaintext that is encrypted in place.
    #[error("{name} is the undo record of an encryption in place")]
    Room {
        /// The name of the record.
        name: String,
    },
    /// The record is incomplete.
    #[error("{name} is not a complete undo record")]
    Damaged {
        /// The record's name.
        name: String,
    },
    /// The record belongs to another volume.
    #[error("{name} belongs to another volume")]
    OtherImage {
        /// The record's name.
        name: String,
    },
    /// The record has ranges after the header, or does not contain an old header.
    #[error("{name} is not the record of a change of this header: it reaches to byte {end}")]
    Outside {
        /// The record's name.
        name: String,
        /// The end of its last range, in bytes.
        end: u64,
    },
    /// Another program has changed the header since the record was made.
    #[error(
        "another program has changed the header since {name} was made, at byte {offset}: the \
         header and the record stay as they are"
    )]
    Changed {
        /// The record's name.
        name: String,
        /// The first byte that is neither old nor new.
        offset: u64,
        /// The keyslots whose key material the interrupted change was to write. Without the record,
        /// they may open with neither passphrase.
        keyslots: Vec<u32>,
    },
    /// The record is of the first version, which does not say what the change wrote.
    #[error(
        "{name} does not say what the interrupted change wrote: it and the header stay as they are"
    )]
    NoHashes {
        /// The record's name.
        name: String,
        /// As in [`Changed`](Self::Changed).
        keyslots: Vec<u32>,
    },
    /// The record cannot be discarded, since the present header cannot be read.
    #[error("the header cannot be read, so {name} is kept")]
    NoHeader {
        /// The record's name.
        name: String,
        /// What is wrong with the header.
        #[source]
        source: Box<OpenError>,
    },
    /// The record cannot be read.
    #[error("cannot read the undo record")]
    Read(#[source] io::Error),
    /// The record or a copy cannot be written, or the record cannot be removed.
    #[error("cannot write or remove the undo record")]
    Store(#[from] io::Error),
    /// The image cannot be read or written.
    #[error("the image cannot be rolled back")]
    Storage(#[from] IoError),
}
