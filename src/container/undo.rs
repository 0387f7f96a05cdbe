//! The undo record: the old bytes of a change that overwrites in place, kept beside the image until
//! the change is durable.
//!
//! LUKS1 has one copy of its header and fixed keyslots, so a few changes cannot be made safe inside
//! of the image: a change of a passphrase when all keyslots are full, restoring a backup, and
//! conversion. The record contains the old bytes of all ranges that the change writes. These are
//! headers and encrypted key material, so it deserves the same care as a header backup. It is
//! written and synced before the first write. It is removed, and the removal synced, after the last
//! one. While it exists, the container only opens for repair: [`roll_back`] restores the old state.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::UndoError;
use crate::backend::{Backend, IoError};
use crate::door;

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
    /// A name for messages, such as a path.
    fn name(&self) -> String;
}

/// Where the undo record of a container is kept, and where the record of an interrupted change may
/// be.
///
/// A header in the middle of a change must not be used. With a store,
/// [`Container::open`](super::Container::open) refuses a container that has a record, with
/// [`OpenError::Interrupted`](super::OpenError::Interrupted), until
/// [`Container::repair`](super::Container::repair) has rolled the change back.
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

/// The content of a record: the old bytes by offset.
///
/// The layout, in little-endian: magic (16 bytes), SHA-256 of everything after it (32), the UUID
/// fields of the header before and after the change (40 each), the number of ranges (u64), and for
/// each range its offset (u64), its length (u64) and its bytes.
pub(super) struct UndoRecord {
    /// The UUID fields before and after the change. Only an image with one of these is rolled back,
    /// not another one under the same name.
    uuids: [Uuid; 2],
    ranges: Vec<(u64, Vec<u8>)>,
}

type Uuid = [u8; 40];

/// The offset of the UUID field in both versions. It is in the first 512 bytes, which are written
/// atomically.
const UUID_OFFSET: u64 = 168;

const MAGIC: &[u8; 16] = b"luksmith undo 1\n";

/// Whether these bytes start like a record. The record may be damaged.
pub(super) fn is_record(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

impl UndoRecord {
    /// Reads the present bytes of the ranges of `writes`. A range past the end of the storage is an
    /// error, since a plan never grows the storage.
    pub(super) fn take<'a>(
        storage: &dyn Backend,
        writes: impl Iterator<Item = (u64, &'a [u8])>,
    ) -> Result<Self, IoError> {
        let before = uuid_of(storage)?;
        let mut after = before;
        let mut sorted: Vec<Range<u64>> = Vec::new();
        for (offset, bytes) in writes {
            if offset == 0
                && let Some(uuid) = bytes.get(168..208).and_then(|field| field.first_chunk())
            {
                after = *uuid;
            }
            sorted.push(offset..offset + bytes.len() as u64);
        }
        sorted.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        let ranges = merged
            .into_iter()
            .map(|range| {
                let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
                Ok((range.start, door::read(storage, range.start, length)?))
            })
            .collect::<Result<_, IoError>>()?;
        Ok(Self {
            uuids: [before, after],
            ranges,
        })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = self.uuids.concat();
        body.extend((self.ranges.len() as u64).to_le_bytes());
        for (offset, bytes) in &self.ranges {
            body.extend(offset.to_le_bytes());
            body.extend((bytes.len() as u64).to_le_bytes());
            body.extend(bytes);
        }
        let mut record = MAGIC.to_vec();
        record.extend(checksum(&body));
        record.extend(body);
        record
    }

    fn parse(record: &[u8]) -> Option<Self> {
        let (stored, body) = record.strip_prefix(MAGIC)?.split_at_checked(32)?;
        if stored != checksum(body).as_slice() {
            return None;
        }
        let (before, rest) = body.split_first_chunk()?;
        let (after, mut rest) = rest.split_first_chunk()?;
        let count = take_u64(&mut rest)?;
        let mut ranges = Vec::new();
        for _ in 0..count {
            let offset = take_u64(&mut rest)?;
            let length = usize::try_from(take_u64(&mut rest)?).ok()?;
            let (bytes, after) = rest.split_at_checked(length)?;
            ranges.push((offset, bytes.to_vec()));
            rest = after;
        }
        rest.is_empty().then_some(Self {
            uuids: [*before, *after],
            ranges,
        })
    }
}

/// Rolls back the interrupted change that left a record in `undo`. Returns whether there was a
/// record. A crash in the middle keeps the record, so this can be repeated.
///
/// # Errors
/// Returns [`UndoError::Damaged`] if the record is incomplete, [`UndoError::OtherImage`] if it
/// belongs to another volume, and [`UndoError::Storage`] if the image cannot be written.
pub fn roll_back(storage: &dyn Backend, undo: &dyn UndoStore) -> Result<bool, UndoError> {
    let Some(record) = undo.load()? else {
        return Ok(false);
    };
    let record =
        UndoRecord::parse(&record).ok_or_else(|| UndoError::Damaged { name: undo.name() })?;
    if !record.uuids.contains(&uuid_of(storage)?) {
        return Err(UndoError::OtherImage { name: undo.name() });
    }
    for (offset, bytes) in &record.ranges {
        door::write(storage, *offset, bytes)?;
    }
    storage.flush()?;
    undo.clear()?;
    Ok(true)
}

/// Removes the record of a volume that no longer exists. A file that is not a record stays.
pub(crate) fn discard(undo: &dyn UndoStore) -> Result<(), UndoError> {
    if undo.load()?.is_some_and(|record| is_record(&record)) {
        undo.clear()?;
    }
    Ok(())
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_le_bytes(*number))
}

fn uuid_of(storage: &dyn Backend) -> Result<Uuid, IoError> {
    let field = door::read(storage, UUID_OFFSET, size_of::<Uuid>())?;
    Ok(field.first_chunk().copied().unwrap_or([0; 40]))
}

fn checksum(body: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(body).into()
}
