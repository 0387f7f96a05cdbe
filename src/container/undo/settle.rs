//! Ends an interrupted change that has left an undo record.
//!
//! A change is rolled back only if every unit of 512 bytes that it writes is as it was before the
//! change, or as the change wrote it. Otherwise another program has changed the header since. A
//! rollback would then bring removed passphrases back and lose new ones. So the header stays, and
//! [`parts`] says what becomes of the key material. Where it cannot, the caller has to choose.

use std::fmt;
use std::ops::Range;

use luksmith_formats::Limits;

use super::parts::{self, Judgement};
use super::record::{Found, UndoRecord, is_remnant};
use super::{Kept, ROOM_MAGIC, UndoStore};
use crate::backend::Backend;
use crate::container::open::{self, Loaded};
use crate::container::{OpenError, UndoError};
use crate::door;

/// What happens with an undo record that does not prove which state is right: another program has
/// changed the header since, or the record is damaged, or belongs to another volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unproven {
    /// Nothing changes, and the error says why.
    #[default]
    Refuse,
    /// The header stays as it is, if it can be read, and the record is removed. A copy of it is
    /// first kept with [`UndoStore::keep_copy`]: it may contain the only key material of a keyslot.
    Discard,
    /// The old bytes of the record are written back. The present header is first kept with
    /// [`UndoStore::keep_copy`]. A record that is damaged or belongs to another volume is still
    /// refused.
    Apply,
}

/// How an interrupted change was ended. There is no record any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settled {
    /// The change had written nothing.
    NotBegun,
    /// The change was complete, except that its record was still there. It stays.
    Complete,
    /// The change was rolled back.
    RolledBack,
    /// Another program has changed the header since. The header stays, and these keyslots, which
    /// are in it as they were before the change, have their key material again.
    PutBack {
        /// The numbers of the keyslots.
        keyslots: Vec<u32>,
    },
    /// The record was removed on request. The header stays as it was found.
    Discarded {
        /// The name of the copy of the record. `None` if the record was empty.
        copy: Option<String>,
    },
    /// The change was rolled back on request, over changes of another program.
    Applied {
        /// The name of the copy of the header that was there.
        copy: String,
    },
}

impl fmt::Display for Settled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBegun => formatter.write_str("an interrupted change had written nothing"),
            Self::Complete => formatter.write_str("an interrupted change was complete, and stays"),
            Self::RolledBack => formatter.write_str("rolled back an interrupted change"),
            Self::PutBack { keyslots } => write!(
                formatter,
                "the header stays as another program has changed it; put back the key material of \
                 {}, which an interrupted change had overwritten",
                numbered(keyslots)
            ),
            Self::Discarded { copy: None } => formatter.write_str("the header stays as it is"),
            Self::Discarded { copy: Some(copy) } => write!(
                formatter,
                "the header stays as it is; a copy of the undo record is {copy}"
            ),
            Self::Applied { copy } => write!(
                formatter,
                "rolled back an interrupted change, and what other programs changed since; a copy \
                 of the header that was there is {copy}"
            ),
        }
    }
}

/// Keyslots in a sentence, such as `keyslots 0, 3`.
fn numbered(keyslots: &[u32]) -> String {
    let numbers: Vec<String> = keyslots.iter().map(ToString::to_string).collect();
    let plural = if keyslots.len() == 1 { "" } else { "s" };
    format!("keyslot{plural} {}", numbers.join(", "))
}

/// How a change ends, and the parts of the storage that get their old bytes back.
struct Proof {
    settled: Settled,
    put_back: Vec<Range<u64>>,
}

impl Proof {
    fn nothing_to_write(settled: Settled) -> Self {
        let put_back = Vec::new();
        Self { settled, put_back }
    }
}

/// Ends the interrupted change that has left a record in `undo`. Returns `None` if there is no
/// record. A crash in the middle keeps the record, so this can be repeated.
pub(in crate::container) fn settle(
    storage: &dyn Backend,
    undo: &dyn UndoStore,
    unproven: Unproven,
    limits: &Limits,
) -> Result<Option<Settled>, UndoError> {
    let Some(bytes) = undo.load().map_err(UndoError::Read)? else {
        return Ok(None);
    };
    let name = undo.name();
    if !is_remnant(&bytes) {
        return Err(UndoError::NoRecord { name });
    }
    if bytes.starts_with(ROOM_MAGIC) {
        return Err(UndoError::Room { name });
    }
    let refused = match UndoRecord::parse(&bytes) {
        None => UndoError::Damaged { name },
        Some(record) => match prove(storage, &record, name, limits)? {
            Ok(proof) => {
                // This flushes too: another process may have written the storage without a flush.
                record.write_back_in(storage, &proof.put_back)?;
                undo.clear()?;
                return Ok(Some(proof.settled));
            }
            Err(UndoError::Changed { .. } | UndoError::NoHashes { .. })
                if unproven == Unproven::Apply =>
            {
                let header = present_header(storage, &record, limits)?;
                let copy = undo.keep_copy(Kept::Header, &header)?;
                record.write_back(storage)?;
                undo.clear()?;
                return Ok(Some(Settled::Applied { copy }));
            }
            Err(refused) => refused,
        },
    };
    if unproven != Unproven::Discard {
        return Err(refused);
    }
    open::load(storage, limits).map_err(|source| UndoError::NoHeader {
        name: undo.name(),
        source: Box::new(source),
    })?;
    let copy = match bytes.is_empty() {
        true => None,
        false => Some(undo.keep_copy(Kept::Record, &bytes)?),
    };
    undo.clear()?;
    Ok(Some(Settled::Discarded { copy }))
}

/// Removes the record of a volume that no longer exists. A file that is not a record stays, since
/// it belongs to another program.
pub(crate) fn discard(undo: &dyn UndoStore) -> Result<(), UndoError> {
    let record = undo.load().map_err(UndoError::Read)?;
    if record.is_some_and(|record| is_remnant(&record)) {
        undo.clear()?;
    }
    Ok(())
}

/// What the record proves, or else why it proves nothing.
fn prove(
    storage: &dyn Backend,
    record: &UndoRecord,
    name: String,
    limits: &Limits,
) -> Result<Result<Proof, UndoError>, UndoError> {
    if !record.is_of(storage)? {
        return Ok(Err(UndoError::OtherImage { name }));
    }
    // Otherwise a record could overwrite data. The rollback has to result in a header, and all of
    // the record has to be before the data of that header and of the present one.
    let end = record.end();
    let (old, limit_of_old) = match end > storage.geometry().size {
        true => (None, None),
        false => with_limit(open::load(&record.rolled_back(storage), limits))?,
    };
    // In the middle of a change there may be no valid header.
    let present = open::load(storage, limits).ok();
    let limit_of_present = present.as_ref().map_or(u64::MAX, limit);
    if limit_of_old.is_none_or(|old| end > old.min(limit_of_present)) {
        return Ok(Err(UndoError::Outside { name, end }));
    }
    let keyslots = old
        .as_ref()
        .map_or_else(Vec::new, |old| parts::keyslots(record, &old.header));
    Ok(Ok(match record.find(storage)? {
        Found::Old => Proof::nothing_to_write(Settled::NotBegun),
        Found::New => Proof::nothing_to_write(Settled::Complete),
        Found::Mixed => Proof {
            settled: Settled::RolledBack,
            put_back: record.places().collect(),
        },
        Found::Other(_) if !record.has_hashes() => {
            return Ok(Err(UndoError::NoHashes { name, keyslots }));
        }
        Found::Other(offset) => {
            match parts::judge(storage, record, old.as_ref(), present.as_ref())? {
                Judgement::NotBegun => Proof::nothing_to_write(Settled::NotBegun),
                Judgement::Complete => Proof::nothing_to_write(Settled::Complete),
                Judgement::PutBack { keyslots, areas } => Proof {
                    settled: Settled::PutBack { keyslots },
                    put_back: areas,
                },
                Judgement::Open => {
                    return Ok(Err(UndoError::Changed {
                        name,
                        offset,
                        keyslots,
                    }));
                }
            }
        }
    }))
}

/// A header, and the end of the bytes that a change of it can write. `None` if there is no header.
fn with_limit(
    loaded: Result<Loaded, OpenError>,
) -> Result<(Option<Loaded>, Option<u64>), UndoError> {
    Ok(match loaded {
        Ok(loaded) => {
            let limit = limit(&loaded);
            (Some(loaded), Some(limit))
        }
        // A repair writes only the header itself.
        Err(OpenError::Remains(remains)) => (None, Some(remains.header_end())),
        Err(OpenError::Io(error)) => return Err(error.into()),
        Err(_) => (None, None),
    })
}

fn limit(loaded: &Loaded) -> u64 {
    match loaded.header.data_offset() {
        // The data is elsewhere.
        0 => u64::MAX,
        offset => offset,
    }
}

/// The bytes of the header that is on the storage, as in a backup if it can be read.
fn present_header(
    storage: &dyn Backend,
    record: &UndoRecord,
    limits: &Limits,
) -> Result<Vec<u8>, UndoError> {
    let size = storage.geometry().size;
    let old = record.rolled_back(storage);
    let ends = [open::load(storage, limits), open::load(&old, limits)]
        .into_iter()
        .flatten()
        .map(|loaded| loaded.header.backup_end(size));
    let end = ends.chain([record.end()]).max().unwrap_or(0).min(size);
    let end = usize::try_from(end).unwrap_or(usize::MAX);
    Ok(door::read(storage, 0, end)?)
}
