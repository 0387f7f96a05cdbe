//! Ends an interrupted change that has left an undo record.
//!
//! A change is rolled back only if every unit of 512 bytes that it writes is as it was before the
//! change, or as the change wrote it. Otherwise another program has changed the header since. A
//! rollback would then bring removed passphrases back and lose new ones, so the caller has to
//! choose.

use std::fmt;

use luksmith_formats::Limits;

use super::UndoStore;
use super::record::{Found, RolledBack, UndoRecord, is_remnant};
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
    /// The header stays as it is, if it can be read, and the record is removed.
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
    /// The record was removed on request. The header stays as it was found.
    Discarded,
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
            Self::Discarded => formatter.write_str("the header stays as it is"),
            Self::Applied { copy } => write!(
                formatter,
                "rolled back an interrupted change, and what other programs changed since; a copy \
                 of the header that was there is {copy}"
            ),
        }
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
    let Some(bytes) = undo.load()? else {
        return Ok(None);
    };
    let name = undo.name();
    if !is_remnant(&bytes) {
        return Err(UndoError::NoRecord { name });
    }
    let refused = match UndoRecord::parse(&bytes) {
        None => UndoError::Damaged { name },
        Some(record) => match prove(storage, &record, name, limits)? {
            Ok(settled) => {
                match settled {
                    Settled::RolledBack => record.write_back(storage)?,
                    // Another process may have written it without a flush.
                    _ => storage.flush()?,
                }
                undo.clear()?;
                return Ok(Some(settled));
            }
            Err(UndoError::Changed { .. } | UndoError::NoHashes { .. })
                if unproven == Unproven::Apply =>
            {
                let copy = undo.keep_copy(&present_header(storage, &record, limits)?)?;
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
    undo.clear()?;
    Ok(Some(Settled::Discarded))
}

/// Removes the record of a volume that no longer exists. A file that is not a record stays, since
/// it belongs to another program.
pub(crate) fn discard(undo: &dyn UndoStore) -> Result<(), UndoError> {
    if undo.load()?.is_some_and(|record| is_remnant(&record)) {
        undo.clear()?;
    }
    Ok(())
}

/// Which state the record proves, or else why it proves none.
fn prove(
    storage: &dyn Backend,
    record: &UndoRecord,
    name: String,
    limits: &Limits,
) -> Result<Result<Settled, UndoError>, UndoError> {
    if !record.is_of(storage)? {
        return Ok(Err(UndoError::OtherImage { name }));
    }
    // Otherwise a record could overwrite data. The rollback has to result in a header, and all of
    // the record has to be before the data of that header and of the present one.
    let end = record.end();
    let old = match end > storage.geometry().size {
        true => None,
        false => limit(open::load(&RolledBack { storage, record }, limits))?,
    };
    // In the middle of a change there may be no valid header.
    let present = match open::load(storage, limits) {
        Ok(loaded) => limit(Ok(loaded))?.unwrap_or(u64::MAX),
        Err(_) => u64::MAX,
    };
    if old.is_none_or(|old| end > old.min(present)) {
        return Ok(Err(UndoError::Outside { name, end }));
    }
    Ok(match record.find(storage)? {
        Found::Old => Ok(Settled::NotBegun),
        Found::New => Ok(Settled::Complete),
        Found::Mixed => Ok(Settled::RolledBack),
        Found::Other(_) if !record.has_hashes() => Err(UndoError::NoHashes { name }),
        Found::Other(offset) => Err(UndoError::Changed { name, offset }),
    })
}

/// The end of the bytes that a change of a header can write. `None` if there is no header.
fn limit(loaded: Result<Loaded, OpenError>) -> Result<Option<u64>, UndoError> {
    Ok(match loaded.map(|loaded| loaded.header.data_offset()) {
        // The data is elsewhere.
        Ok(0) => Some(u64::MAX),
        Ok(offset) => Some(offset),
        // A repair writes only the header itself.
        Err(OpenError::Remains(remains)) => Some(remains.header_end()),
        Err(OpenError::Io(error)) => return Err(error.into()),
        Err(_) => None,
    })
}

/// The bytes of the header that is on the storage, as in a backup if it can be read.
fn present_header(
    storage: &dyn Backend,
    record: &UndoRecord,
    limits: &Limits,
) -> Result<Vec<u8>, UndoError> {
    let size = storage.geometry().size;
    let old = RolledBack { storage, record };
    let ends = [open::load(storage, limits), open::load(&old, limits)]
        .into_iter()
        .flatten()
        .map(|loaded| loaded.header.backup_end(size));
    let end = ends.chain([record.end()]).max().unwrap_or(0).min(size);
    let end = usize::try_from(end).unwrap_or(usize::MAX);
    Ok(door::read(storage, 0, end)?)
}
