//! Opens a container: finds the version, chooses a copy, and checks the size of the storage.
//!
//! References: LUKS1 On-Disk Format 1.2.3, section 2; LUKS2 On-Disk Format 1.1, section 2 (the two
//! copies and their recovery). Each byte is read once, and exactly the validated bytes are used
//! afterwards.

use std::cmp::Ordering;
use std::sync::Arc;

use luksmith_formats::luks2::{HEADER_SIZES, Position};
use luksmith_formats::rbd::CLONE_MAGIC;
use luksmith_formats::{FormatError, Kind, Limits, MAGIC};
use luksmith_formats::{luks1, luks2};
use sha2::{Digest as _, Sha256};

use super::remains::{self, Remains};
use super::{
    Container, Fingerprint, Header, Health, OpenError, OpenOptions, foreign, pinned, undo,
};
use crate::backend::Backend;
use crate::door;
use crate::trust::{Checked, Pinned, Refused, Trust};

const BINARY_HEADER: usize = 4096;

impl Container {
    /// Reads and validates the header at the start of `storage`. A detached header is on a storage
    /// of its own.
    ///
    /// # Errors
    /// Returns [`OpenError`] if there is no valid header, or if an interrupted change has to be
    /// repaired first, with [`Container::repair`]. Returns [`OpenError::Trust`] if the header is
    /// not as it is pinned.
    pub fn open(storage: Arc<dyn Backend>, options: OpenOptions) -> Result<Self, OpenError> {
        if let Some(undo) = options.undo.store()
            && let Some(record) = undo.load().map_err(OpenError::Undo)?
        {
            let undo = undo.name();
            return Err(if undo::is_remnant(&record) {
                OpenError::Interrupted { undo }
            } else {
                OpenError::NoUndo { undo }
            });
        }
        let (loaded, pin) = match &options.trust {
            Trust::NotLookedFor => (load(&*storage, &options.limits)?, None),
            Trust::Pinned(pinned) => {
                let (loaded, checked) = load_pinned(&*storage, &options.limits, pinned)?;
                (loaded, Some(checked))
            }
        };
        Ok(Self {
            storage,
            options,
            header: loaded.header,
            health: loaded.health,
            fingerprint: loaded.fingerprint,
            pin,
        })
    }
}

/// Reads a header and compares it with its pin. Another process may change both meanwhile: a header
/// is refused only if the pin was the same before and after it was read.
fn load_pinned(
    storage: &dyn Backend,
    limits: &Limits,
    pinned: &Pinned,
) -> Result<(Loaded, Checked), OpenError> {
    let mut before = None;
    loop {
        let loaded = load(storage, limits)?;
        match pinned::check(pinned, &loaded.header, storage) {
            Ok(checked) => return Ok((loaded, checked)),
            Err(Refused { error, pin }) if pin.is_none() || pin == before => {
                return Err(error.into());
            }
            Err(Refused { pin, .. }) => before = pin,
        }
    }
}

/// A header that was found on a storage.
pub(super) struct Loaded {
    pub(super) header: Header,
    pub(super) health: Health,
    pub(super) fingerprint: Fingerprint,
}

pub(super) fn load(storage: &dyn Backend, limits: &Limits) -> Result<Loaded, OpenError> {
    let size = storage.geometry().size;
    if size < luks1::HEADER_SIZE as u64 {
        return Err(OpenError::NotLuks);
    }
    let start = door::read(
        storage,
        0,
        BINARY_HEADER.min(usize::try_from(size).unwrap_or(BINARY_HEADER)),
    )?;
    if start.starts_with(&CLONE_MAGIC) {
        return Err(OpenError::CloneInCeph);
    }
    if start.starts_with(&MAGIC) && start.get(6..8) == Some(&[0, 1]) {
        return load_luks1(size, &start, limits);
    }
    load_luks2(storage, size, &start, limits)
}

fn load_luks1(size: u64, start: &[u8], limits: &Limits) -> Result<Loaded, OpenError> {
    let bytes = start.get(..luks1::HEADER_SIZE).unwrap_or(start);
    let header = luks1::Header::parse(bytes, limits).map_err(|error| {
        remains::luks1(bytes, limits).map_or(OpenError::Header(error), OpenError::Remains)
    })?;
    // A detached header and a backup file end after the last keyslot. Whether the data is there is
    // checked when the data is opened.
    let needed = (0..luks1::KEYSLOTS)
        .filter(|&slot| header.keyslots[slot].active)
        .map(|slot| header.area(slot).end)
        .max()
        .unwrap_or(0);
    if size < needed {
        return Err(OpenError::TooSmall { size, needed });
    }
    Ok(Loaded {
        header: Header::Luks1(header),
        health: Health::Good,
        fingerprint: fingerprint(&[bytes]),
    })
}

fn load_luks2(
    storage: &dyn Backend,
    size: u64,
    start: &[u8],
    limits: &Limits,
) -> Result<Loaded, OpenError> {
    let claimed = luks2::Header::probe_size(start, Position::Primary);
    let primary = match claimed.clone() {
        Ok(header_size) => read_copy(storage, size, header_size, Position::Primary, limits)?,
        Err(error) => Err(error),
    };
    let secondary = find_secondary(
        storage,
        size,
        primary.as_ref().ok().map(|copy| copy.header.hdr_size),
        limits,
    )?;
    let (used, health, bytes) = match (primary, secondary) {
        (Ok(primary), Ok(secondary)) => {
            let bytes = [primary.bytes, secondary.bytes];
            match primary.header.seqid.cmp(&secondary.header.seqid) {
                Ordering::Equal if primary.header == secondary.header => {
                    (primary.header, Health::Good, bytes)
                }
                Ordering::Equal => (primary.header, Health::CopiesDiffer, bytes),
                Ordering::Greater => (primary.header, Health::SecondaryStale, bytes),
                Ordering::Less => (secondary.header, Health::PrimaryStale, bytes),
            }
        }
        (Ok(primary), Err(Some((error, bytes)))) => {
            let health = match (error.kind, seqid(&bytes).cmp(&primary.header.seqid)) {
                // The newer metadata is of a program that writes what is not understood here.
                (Kind::NotUnderstood, Ordering::Greater) => {
                    return Err(OpenError::NotUnderstood(error));
                }
                (Kind::NotUnderstood, Ordering::Equal) => Health::CopiesDiffer,
                (Kind::NotUnderstood, Ordering::Less) => Health::SecondaryStale,
                _ => Health::SecondaryDamaged(error),
            };
            (primary.header, health, [primary.bytes, bytes])
        }
        (Ok(primary), Err(None)) => {
            let error =
                FormatError::malformed("secondary header", primary.header.hdr_size, "not found");
            (
                primary.header,
                Health::SecondaryDamaged(error),
                [primary.bytes, Vec::new()],
            )
        }
        (Err(error), Ok(secondary)) => {
            let at = secondary.header.hdr_size;
            if !start.starts_with(&MAGIC)
                && let Some(over) = foreign::signature(storage)?
            {
                return Err(OpenError::Remains(Remains::Secondary { at, over }));
            }
            let health = match (error.kind, seqid(start).cmp(&secondary.header.seqid)) {
                (Kind::NotUnderstood, Ordering::Less) => Health::PrimaryStale,
                (Kind::NotUnderstood, _) => return Err(OpenError::NotUnderstood(error)),
                _ => Health::PrimaryDamaged(error),
            };
            let whole = usize::try_from(at).unwrap_or(BINARY_HEADER);
            let found = door::read(storage, 0, whole)?;
            (secondary.header, health, [found, secondary.bytes])
        }
        (Err(primary), Err(secondary)) => {
            return Err(match secondary {
                None if claimed
                    .as_ref()
                    .is_ok_and(|header_size| size < header_size * 2) =>
                {
                    OpenError::TooSmall {
                        size,
                        needed: claimed.unwrap_or(0) * 2,
                    }
                }
                _ if primary.kind == Kind::NotUnderstood => OpenError::NotUnderstood(primary),
                Some((secondary, _)) if secondary.kind == Kind::NotUnderstood => {
                    OpenError::NotUnderstood(secondary)
                }
                _ if !start.starts_with(&MAGIC) => match remains::find(storage, start, limits)? {
                    Some(remains) => OpenError::Remains(remains),
                    None => OpenError::NotLuks,
                },
                // Both copies are intact, but ask for something that is not supported.
                Some((secondary, _))
                    if primary.kind != Kind::Malformed && primary.kind == secondary.kind =>
                {
                    OpenError::Header(primary)
                }
                Some((secondary, _)) => OpenError::BothCopies {
                    primary: primary.into(),
                    secondary: secondary.into(),
                },
                None => OpenError::Header(primary),
            });
        }
    };
    let needed = used.hdr_size * 2 + used.metadata.config().keyslots_size;
    if size < needed {
        return Err(OpenError::TooSmall { size, needed });
    }
    let fingerprint = fingerprint(&[&bytes[0], &bytes[1]]);
    Ok(Loaded {
        header: Header::Luks2(used),
        health,
        fingerprint,
    })
}

/// A valid copy, and the bytes that it was parsed from.
struct Copy {
    header: luks2::Header,
    bytes: Vec<u8>,
}

fn read_copy(
    storage: &dyn Backend,
    size: u64,
    header_size: u64,
    position: Position,
    limits: &Limits,
) -> Result<Result<Copy, FormatError>, OpenError> {
    let offset = match position {
        Position::Primary => 0,
        Position::Secondary => header_size,
    };
    if header_size > limits.metadata_size {
        let cause = format!("{header_size} bytes, the limit is {}", limits.metadata_size);
        return Ok(Err(FormatError::over_limit("hdr_size", offset + 8, cause)));
    }
    if size < offset + header_size {
        let cause = format!("{header_size} bytes, the storage ends at {size}");
        return Ok(Err(FormatError::malformed("hdr_size", offset + 8, cause)));
    }
    let bytes = door::read(
        storage,
        offset,
        usize::try_from(header_size).unwrap_or(BINARY_HEADER),
    )?;
    Ok(luks2::Header::parse(&bytes, position, limits).map(|header| Copy { header, bytes }))
}

/// The sequence number in a copy whose checksum matches.
fn seqid(copy: &[u8]) -> u64 {
    let field = copy.get(16..24).and_then(|field| field.first_chunk());
    field.map_or(0, |field| u64::from_be_bytes(*field))
}

/// Reads the secondary copy: at the offset that the primary names, or else at any of the nine
/// offsets that the format permits. Returns `Err(None)` if there is no secondary copy, and
/// `Err(Some(_))` if there is a damaged one.
#[allow(clippy::type_complexity)]
fn find_secondary(
    storage: &dyn Backend,
    size: u64,
    known: Option<u64>,
    limits: &Limits,
) -> Result<Result<Copy, Option<(FormatError, Vec<u8>)>>, OpenError> {
    let mut damaged = None;
    for header_size in known.map_or_else(|| HEADER_SIZES.to_vec(), |size| vec![size]) {
        if size < header_size * 2 {
            continue;
        }
        let start = door::read(storage, header_size, BINARY_HEADER)?;
        let error = match luks2::Header::probe_size(&start, Position::Secondary) {
            Ok(_) => match read_copy(storage, size, header_size, Position::Secondary, limits)? {
                Ok(copy) => return Ok(Ok(copy)),
                Err(error) => error,
            },
            // Without a primary copy, an offset without a secondary copy is not a damaged copy.
            Err(_) if known.is_none() => continue,
            Err(mut error) => {
                error.offset += header_size;
                error
            }
        };
        let found = door::read(
            storage,
            header_size,
            usize::try_from(header_size).unwrap_or(BINARY_HEADER),
        )?;
        damaged = Some((error, found));
    }
    Ok(Err(damaged))
}

/// The fingerprint of the header bytes that are on the storage now, for the comparison before a
/// change.
pub(super) fn current_fingerprint(
    storage: &dyn Backend,
    header: &Header,
) -> Result<Fingerprint, crate::backend::IoError> {
    match header {
        Header::Luks1(_) => Ok(fingerprint(&[&door::read(storage, 0, luks1::HEADER_SIZE)?])),
        Header::Luks2(header) => {
            let both = usize::try_from(header.hdr_size * 2).unwrap_or(BINARY_HEADER);
            Ok(fingerprint(&[&door::read(storage, 0, both)?]))
        }
    }
}

fn fingerprint(parts: &[&[u8]]) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}
