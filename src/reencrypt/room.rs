//! Makes room for a header before plaintext that is encrypted in place, so that no cut loses data.
//!
//! The file system moves the content ([`Room`]), which is not atomic. So an undo record is durable
//! first. It has the size of the content and the hash of each piece of it:
//!
//! ```text
//! magic of 16 bytes │ SHA-256 of the rest │ UUID of the volume │ size │ room │ hashes
//! ```
//!
//! After a cut, the hashes tell which bytes have moved, and the move is reversed. A reversal that
//! is cut leaves a state of the same kind. Nothing is changed unless the hashes prove that the
//! content is complete. If the header is complete, the move stays. The record is removed before the
//! first byte of the content is changed.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::Interrupt;
use crate::backend::room::Room;
use crate::backend::{Backend, IoError};
use crate::container::{
    BeginEncryption, Container, CreateError, OpenOptions, ROOM_MAGIC, ReencryptionError,
    ReencryptionKeys, Undo, UndoStore,
};
use crate::door;
use crate::secret::Passphrase;

/// The size of a piece in bytes.
const PIECE: u64 = 1 << 20;
/// The units in which the start of a moved part is looked for, in bytes: blocks of file systems.
const UNITS: [usize; 2] = [4096, 512];
/// The most pieces: that many hashes are in memory.
const MOST_PIECES: u64 = 1 << 24;

type Hash = [u8; 32];

/// Why no room can be made, or why a move that was interrupted cannot be reversed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RoomError {
    /// The content has changed since the record was made, or is incomplete.
    #[error(
        "what had been at byte {at} is neither there nor at its new place: the file has changed \
         since"
    )]
    Changed {
        /// The offset in the content before the move, in bytes.
        at: u64,
    },
    /// The file is that of another image, or was resized.
    #[error("the file has {size} bytes, which it has neither before the move nor after it")]
    Size {
        /// The size that was found, in bytes.
        size: u64,
    },
    /// The record is damaged.
    #[error("the undo record {name} is damaged")]
    Damaged {
        /// The name of the record.
        name: String,
    },
    /// The content is too large for an undo record.
    #[error("{size} bytes are too many for an undo record of their move")]
    TooLarge {
        /// The size in bytes.
        size: u64,
    },
    /// The caller has stopped it. Nothing has changed.
    #[error("stopped")]
    Stopped,
    /// The undo record cannot be read.
    #[error("cannot read the undo record")]
    Read(#[source] io::Error),
    /// The undo record cannot be written or removed.
    #[error("cannot write or remove the undo record")]
    Store(#[source] io::Error),
    /// The header could not be made.
    #[error("cannot make the header")]
    Header(#[from] ReencryptionError),
    /// The storage failed.
    #[error("the storage failed")]
    Io(#[from] IoError),
}

/// How a move that was interrupted was ended. There is no record any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoomSettled {
    /// Nothing had moved.
    NotBegun,
    /// Everything had moved, and the header is complete.
    Complete,
    /// What had moved is at its old place again.
    Reversed,
}

/// Makes room before the plaintext in `storage`, and there the header of its encryption in place,
/// durably. There is an undo record in `undo` meanwhile. `volume` has to state the UUID. `advance`
/// is called with the length of each piece that was read, and returns whether to go on.
///
/// # Errors
/// Returns [`RoomError`]. The content is at its old place then, unless there is a record.
pub fn begin_with_room<S: Room + 'static>(
    storage: &Arc<S>,
    undo: &dyn UndoStore,
    begin: &BeginEncryption<'_>,
    open: OpenOptions,
    passphrase: &Passphrase,
    interrupt: &Interrupt,
    advance: &mut dyn FnMut(u64) -> bool,
) -> Result<(Container, ReencryptionKeys), RoomError> {
    let layout = begin.volume.layout();
    let room = layout.map_err(ReencryptionError::from)?.data_offset;
    let uuid = begin.volume.uuid.map(|uuid| uuid.to_string());
    let missing = || {
        let (option, reason) = ("uuid", "has to be stated".to_owned());
        ReencryptionError::from(CreateError::Option { option, reason })
    };
    let uuid = uuid.ok_or_else(missing)?;
    make_room(storage, undo, room, &uuid, advance)?;
    let made = match storage.reserve(0..room) {
        Ok(()) | Err(IoError::Unsupported(_)) => {
            Container::begin_encryption(storage.clone(), begin, open, passphrase, interrupt)
                .map_err(RoomError::from)
        }
        Err(error) => Err(error.into()),
    };
    let made = made.and_then(|made| {
        undo.clear().map_err(RoomError::Store)?;
        Ok(made)
    });
    made.inspect_err(|_| {
        // If that fails too, the record stays, and the next command ends the move.
        let _ = settle_room(storage, undo);
    })
}

/// Moves the content of `storage` by `room` bytes, durably, with an undo record in `undo`. `uuid`
/// is that of the volume whose header will be there.
fn make_room<S: Room + 'static>(
    storage: &Arc<S>,
    undo: &dyn UndoStore,
    room: u64,
    uuid: &str,
    advance: &mut dyn FnMut(u64) -> bool,
) -> Result<(), RoomError> {
    storage.can_insert(room)?;
    // What is hashed has to be durable.
    storage.flush()?;
    let record = Record::take(&**storage, room, uuid, advance)?;
    undo.save(&record.to_bytes()).map_err(RoomError::Store)?;
    let moved = storage.insert(room).and_then(|()| storage.flush());
    if let Err(error) = moved {
        // The record stays if this fails.
        settle_room(storage, undo)?;
        return Err(error.into());
    }
    Ok(())
}

/// Ends a move that has left a record in `undo`. Returns `None` if there is no record, or that of
/// another change. A crash in the middle keeps the record, so this can be repeated.
///
/// # Errors
/// Returns [`RoomError`]. Nothing is changed unless the record proves that the content is complete.
pub fn settle_room<S: Room + 'static>(
    storage: &Arc<S>,
    undo: &dyn UndoStore,
) -> Result<Option<RoomSettled>, RoomError> {
    let bytes = undo.load().map_err(RoomError::Read)?;
    let Some(bytes) = bytes.filter(|bytes| bytes.starts_with(ROOM_MAGIC)) else {
        return Ok(None);
    };
    let damaged = || RoomError::Damaged { name: undo.name() };
    let record = Record::parse(&bytes).ok_or_else(damaged)?;
    let settled = match record.find(&**storage)? {
        Found::Before => RoomSettled::NotBegun,
        Found::Moved { from: 0 } if record.has_header(storage) => RoomSettled::Complete,
        Found::Moved { from } => {
            storage.remove(from..from + record.room)?;
            RoomSettled::Reversed
        }
    };
    storage.flush()?;
    undo.clear().map_err(RoomError::Store)?;
    Ok(Some(settled))
}

/// Whether an undo record is that of a move.
///
/// # Errors
/// Returns [`RoomError::Read`].
pub fn is_room_record(undo: &dyn UndoStore) -> Result<bool, RoomError> {
    let bytes = undo.load().map_err(RoomError::Read)?;
    Ok(bytes.is_some_and(|bytes| bytes.starts_with(ROOM_MAGIC)))
}

struct Record {
    uuid: [u8; 40],
    /// The size of the content, and of the room before it, in bytes.
    size: u64,
    room: u64,
    hashes: Vec<Hash>,
}

/// What has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing.
    Before,
    /// Everything from this byte of the content on.
    Moved { from: u64 },
}

impl Record {
    fn take(
        storage: &dyn Backend,
        room: u64,
        uuid: &str,
        advance: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Self, RoomError> {
        let size = storage.geometry().size;
        if size.div_ceil(PIECE) > MOST_PIECES {
            return Err(RoomError::TooLarge { size });
        }
        let mut field = [0; 40];
        for (to, byte) in field.iter_mut().zip(uuid.bytes()) {
            *to = byte;
        }
        let mut hashes = Vec::new();
        for piece in pieces(size) {
            let length = piece.end - piece.start;
            hashes.push(hash_of(storage, &piece)?);
            if !advance(length) {
                return Err(RoomError::Stopped);
            }
        }
        Ok(Self {
            uuid: field,
            size,
            room,
            hashes,
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut rest = self.uuid.to_vec();
        rest.extend(self.size.to_le_bytes());
        rest.extend(self.room.to_le_bytes());
        rest.extend(self.hashes.as_flattened());
        let mut bytes = ROOM_MAGIC.to_vec();
        bytes.extend(Sha256::digest(&rest));
        bytes.extend(rest);
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(ROOM_MAGIC)?;
        let (sum, rest) = rest.split_first_chunk::<32>()?;
        if *sum != <Hash>::from(Sha256::digest(rest)) {
            return None;
        }
        let (uuid, rest) = rest.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (room, rest) = rest.split_first_chunk()?;
        let (hashes, end) = rest.as_chunks();
        let (size, room) = (u64::from_le_bytes(*size), u64::from_le_bytes(*room));
        let count = hashes.len() as u64;
        let whole = end.is_empty() && count == size.div_ceil(PIECE) && count <= MOST_PIECES;
        let possible = whole && room >= PIECE && size.checked_add(room).is_some();
        possible.then(|| Self {
            uuid: *uuid,
            size,
            room,
            hashes: hashes.to_vec(),
        })
    }

    /// Finds what has moved. Every byte of the content is compared with its hash at the place where
    /// it should be then.
    fn find(&self, storage: &dyn Backend) -> Result<Found, RoomError> {
        let size = storage.geometry().size;
        let moved = size == self.size + self.room;
        if !moved && size != self.size {
            return Err(RoomError::Size { size });
        }
        let mut unmoved = 0;
        for (piece, hash) in self.pieces() {
            if hash_of(storage, &piece)? != *hash {
                break;
            }
            unmoved = piece.end;
        }
        if !moved {
            return match unmoved == self.size {
                true => Ok(Found::Before),
                false => Err(RoomError::Changed { at: unmoved }),
            };
        }
        let after = |place: &Range<u64>| place.start + self.room..place.end + self.room;
        for (piece, hash) in self.pieces().filter(|(piece, _)| piece.start > unmoved) {
            if hash_of(storage, &after(&piece))? != *hash {
                return Err(RoomError::Changed { at: piece.start });
            }
        }
        let from = match self.pieces().find(|(piece, _)| piece.start == unmoved) {
            Some((piece, hash)) => split_at(storage, &piece, &after(&piece), hash)?,
            None => Some(0),
        };
        let from = unmoved + from.ok_or(RoomError::Changed { at: unmoved })?;
        // Of a move that was interrupted, this is a hole. At the start, the header may be there.
        if from > 0 && !is_zero(storage, from..from + self.room)? {
            return Err(RoomError::Changed { at: from });
        }
        Ok(Found::Moved { from })
    }

    fn pieces(&self) -> impl Iterator<Item = (Range<u64>, &Hash)> {
        pieces(self.size).zip(&self.hashes)
    }

    /// Whether the header of the volume is in the room. One of its two copies is enough: the
    /// keyslots were durable before the first one, and a repair makes the other.
    fn has_header<S: Room + 'static>(&self, storage: &Arc<S>) -> bool {
        let open = OpenOptions::new(Undo::NotLookedFor);
        let Ok(container) = Container::open(storage.clone(), open) else {
            return false;
        };
        let uuid = container.uuid().bytes().chain(std::iter::repeat(0));
        let found = container.reencryption();
        uuid.zip(self.uuid)
            .take(self.uuid.len())
            .all(|(one, other)| one == other)
            && matches!(found, Ok(Some(found)) if found.is_encryption() && found.previous.offset() == self.room)
    }
}

/// The place in a piece from which on it has moved: before it, its bytes are at their old place,
/// and after it at their new one. `None` if it has another hash in each case.
fn split_at(
    storage: &dyn Backend,
    old: &Range<u64>,
    new: &Range<u64>,
    hash: &Hash,
) -> Result<Option<u64>, IoError> {
    let length = usize::try_from(old.end - old.start).unwrap_or(0);
    let before = door::read_unencrypted(storage, old.start, length)?;
    let after = door::read_unencrypted(storage, new.start, length)?;
    let (before, after) = (before.as_slice(), after.as_slice());
    for unit in UNITS {
        let mut start = Sha256::new();
        for at in (0..length).step_by(unit) {
            let mut whole = start.clone();
            whole.update(&after[at..]);
            if <Hash>::from(whole.finalize()) == *hash {
                return Ok(Some(at as u64));
            }
            start.update(&before[at..length.min(at + unit)]);
        }
    }
    Ok(None)
}

fn hash_of(storage: &dyn Backend, piece: &Range<u64>) -> Result<Hash, IoError> {
    let length = usize::try_from(piece.end - piece.start).unwrap_or(0);
    let bytes = door::read_unencrypted(storage, piece.start, length)?;
    Ok(Sha256::digest(bytes.as_slice()).into())
}

fn is_zero(storage: &dyn Backend, range: Range<u64>) -> Result<bool, IoError> {
    for piece in pieces(range.end - range.start) {
        let length = usize::try_from(piece.end - piece.start).unwrap_or(0);
        let bytes = door::read_unencrypted(storage, range.start + piece.start, length)?;
        if bytes.as_slice().iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn pieces(size: u64) -> impl Iterator<Item = Range<u64>> {
    (0..size.div_ceil(PIECE)).map(move |index| index * PIECE..size.min((index + 1) * PIECE))
}
