//! Backup, restore, repair and erasure of the header.
//!
//! A backup has the format of cryptsetup's `luksHeaderBackup`: the bytes from the start of the
//! storage to the end of the keyslots. So each program restores backups of the other. A backup
//! opens with the passphrases that were valid when it was made, even if they have been removed
//! since.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use luksmith_formats::luks2::{Keyslot, Position, Progress};
use luksmith_formats::{Limits, luks1, luks2};

use super::pinned::Overwriting;
use super::plan::WritePlan;
use super::rewrite::{SectorOrder, write_luks1};
use super::undo::{self, Kept, Settled, Unproven};
use super::{CommitError, Container, Header, HeaderError, Health, OpenError, OpenOptions, open};
use crate::backend::Backend;
use crate::backend::memory::MemoryBackend;
use crate::door;
use crate::trust::Trust;

const BLOCK: usize = 4096;

/// One repair that [`Container::repair`] has made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repaired {
    /// An interrupted change was ended, and this undo record removed.
    Interrupted {
        /// The record's name.
        undo: String,
        /// How the change was ended.
        settled: Settled,
    },
    /// The primary copy was rewritten from the secondary one.
    PrimaryCopy,
    /// The secondary copy was rewritten from the primary one.
    SecondaryCopy,
    /// The magic of a copy of a LUKS2 header was restored.
    Magic(Position),
    /// A LUKS1 header was repaired.
    Luks1(luks1::Fix),
    /// Both copies of a LUKS2 header were rebuilt from the metadata that was left, with a new UUID.
    FromMetadata {
        /// The new UUID.
        uuid: String,
    },
}

impl fmt::Display for Repaired {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted { undo, settled } => {
                write!(formatter, "{settled}; the undo record {undo} is removed")
            }
            Self::PrimaryCopy => formatter.write_str("rewrote the primary copy of the header"),
            Self::SecondaryCopy => formatter.write_str("rewrote the secondary copy of the header"),
            Self::Magic(Position::Primary) => {
                formatter.write_str("restored the magic of the primary copy")
            }
            Self::Magic(Position::Secondary) => {
                formatter.write_str("restored the magic of the secondary copy")
            }
            Self::Luks1(luks1::Fix::Magic) => formatter.write_str("restored the magic"),
            Self::Luks1(fix) => fix.fmt(formatter),
            Self::FromMetadata { uuid } => write!(
                formatter,
                "rebuilt the header from its metadata, with the new UUID {uuid}"
            ),
        }
    }
}

/// What [`Container::restore`] may do that makes the present data unreadable.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// Restores the backup of another volume, or where no header is readable.
    pub other_uuid: bool,
    /// Restores a backup with another volume key, cipher or sector size than the present header.
    pub other_key: bool,
}

impl RestoreOptions {
    /// Only what leaves the data readable.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Sets [`other_uuid`](Self::other_uuid).
        other_uuid: bool,
        /// Sets [`other_key`](Self::other_key).
        other_key: bool,
    }
}

impl Container {
    /// The bytes of a header backup: the header, its second copy, and the encrypted key material.
    ///
    /// # Errors
    /// Returns [`HeaderError::Io`] if the storage cannot be read, and [`HeaderError::Commit`] if
    /// the header has changed since it was opened.
    pub fn backup(&self) -> Result<Vec<u8>, HeaderError> {
        self.check_unchanged()?;
        let end = self.header.backup_end(self.storage.geometry().size);
        let end = usize::try_from(end).unwrap_or(usize::MAX);
        let bytes = door::read(&*self.storage, 0, end)?;
        self.check_unchanged()?;
        Ok(bytes)
    }

    /// Checks whether [`restore`](Self::restore) would restore `backup`, without a change.
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    pub fn check_restore(
        storage: &dyn Backend,
        backup: &[u8],
        allow: RestoreOptions,
        options: &OpenOptions,
    ) -> Result<(), HeaderError> {
        restorable(storage, backup, allow, options).map(drop)
    }

    /// Restores `backup` to the start of `storage`, and opens it.
    ///
    /// If there is a valid header and key material has to be overwritten, the undo store keeps the
    /// old state until the new one is durable. If the data then needs another key than that of the
    /// backup, the undo store also keeps a copy of the old header, whose name is returned.
    ///
    /// # Errors
    /// Returns [`HeaderError::Mismatch`] if the backup has another version, data offset or size, or
    /// has requirements. Returns [`HeaderError::OtherUuid`] if the backup is from another volume,
    /// or if no header is readable, and [`HeaderError::OtherKey`] if the data was reencrypted since
    /// the backup was made, unless `allow` has it. Returns [`HeaderError::NotUnderstood`] if the
    /// present header is valid by its checksum, but not understood. Returns [`CommitError::Trust`]
    /// if the volume is not pinned, or with another key. Nothing has changed then.
    pub fn restore(
        storage: Arc<dyn Backend>,
        backup: &[u8],
        allow: RestoreOptions,
        options: OpenOptions,
    ) -> Result<(Self, Option<String>), HeaderError> {
        let (restored, present) = restorable(&*storage, backup, allow, &options)?;
        // The last block of a backup may contain the begin of the data.
        let data = match restored.data_offset() {
            0 => usize::MAX,
            offset => usize::try_from(offset).unwrap_or(usize::MAX),
        };
        let backup = &backup[..backup.len().min(data)];
        let plan = restore_plan(&*storage, backup, &restored, present.is_some())?;
        let other_key = present.filter(|present| !is_same_encryption(present, &restored));
        let copy = match (other_key, options.undo.store()) {
            (Some(present), Some(undo)) => {
                let end = present.backup_end(storage.geometry().size);
                let end = usize::try_from(end).unwrap_or(usize::MAX);
                let header = door::read(&*storage, 0, end)?;
                let copy = undo.keep_copy(Kept::Header, &header);
                Some(copy.map_err(|error| CommitError::Undo(error.into()))?)
            }
            _ => None,
        };
        let overwriting = match &options.trust {
            Trust::NotLookedFor => None,
            Trust::Pinned(pinned) => {
                let begun = Overwriting::restores(pinned, &plan, &restored, &*storage);
                Some(begun.map_err(CommitError::from)?)
            }
        };
        plan.execute(&*storage, options.undo.store())?;
        if let Some(overwriting) = overwriting {
            overwriting.end();
        }
        Ok((Self::open(storage, options)?, copy))
    }

    /// Ends the interrupted change of the header on `storage`, if there is one: the undo store then
    /// has a record. Returns `None` if there is none.
    ///
    /// If the change has written nothing, or has written everything, only its record is removed. If
    /// it has written a part, and no other program has changed the header since, it is rolled back.
    /// Otherwise `unproven` says what happens.
    ///
    /// # Errors
    /// Returns [`CommitError::Undo`].
    pub fn settle(
        storage: &dyn Backend,
        options: &OpenOptions,
        unproven: Unproven,
    ) -> Result<Option<Repaired>, CommitError> {
        let Some(undo) = options.undo.store() else {
            return Ok(None);
        };
        let settled = undo::settle(storage, undo, unproven, &options.limits)?;
        let undo = undo.name();
        Ok(settled.map(|settled| Repaired::Interrupted { undo, settled }))
    }

    /// Makes the repairs that need no passphrase and no choice: ends an interrupted change, as
    /// [`settle`](Self::settle) does, and rewrites a damaged or stale copy of a LUKS2 header from
    /// the good one. Returns what was done, in order, which may be nothing.
    ///
    /// # Errors
    /// Returns [`CommitError::Undo`] if the interrupted change has to be settled by a choice, and
    /// [`HeaderError::Open`] if no valid header is left; if it has [`OpenError::Remains`],
    /// [`Mend`](super::Mend) can repair it. [`Mend`](super::Mend) can also repair the header where
    /// this returns [`CommitError::Foreign`]: other data (a file system, a partition table) is in
    /// the place of the primary copy.
    pub fn repair(
        storage: Arc<dyn Backend>,
        options: OpenOptions,
    ) -> Result<Vec<Repaired>, HeaderError> {
        let settled = Self::settle(&*storage, &options, Unproven::Refuse)?;
        let mut done = Vec::from_iter(settled);
        let mut container = Self::open(storage, options)?;
        let repaired = match &container.health {
            Health::Good => return Ok(done),
            Health::PrimaryDamaged(_) | Health::PrimaryStale => Repaired::PrimaryCopy,
            Health::SecondaryDamaged(_) | Health::SecondaryStale | Health::CopiesDiffer => {
                Repaired::SecondaryCopy
            }
        };
        if let Header::Luks2(header) = &container.header {
            let mut next = header.clone();
            let mut plan = WritePlan::default();
            container.write_luks2(&mut plan, &mut next)?;
            container.commit(&plan, Header::Luks2(next))?;
        }
        done.push(repaired);
        Ok(done)
    }

    /// Removes every keyslot and overwrites all key material. After this, only a backup of the
    /// header opens the volume.
    ///
    /// Requirements of the header do not forbid this. The keyslot that describes a reencryption
    /// stays, with its area: it holds no key.
    ///
    /// # Errors
    /// Returns [`HeaderError`]. After an interruption, erasing again overwrites the remaining
    /// material.
    pub fn erase(&mut self) -> Result<(), HeaderError> {
        let mut plan = WritePlan::default();
        let (next, material) = match &self.header {
            Header::Luks1(header) => {
                let mut next = header.clone();
                for keyslot in &mut next.keyslots {
                    (keyslot.active, keyslot.iterations, keyslot.salt) = (false, 0, [0; 32]);
                }
                write_luks1(&mut plan, header, &next, SectorOrder::Deactivate);
                (
                    Header::Luks1(next),
                    (0..luks1::KEYSLOTS).map(|slot| header.area(slot)).collect(),
                )
            }
            Header::Luks2(header) => {
                let mut next = header.clone();
                let keyslots = header.metadata.keyslots();
                let (stays, goes): (Vec<_>, Vec<_>) = keyslots
                    .iter()
                    .partition(|(_, keyslot)| keyslot.kind() == Keyslot::REENCRYPT);
                next.metadata.edit(|draft| {
                    goes.iter()
                        .try_for_each(|(slot, _)| draft.remove_keyslot(**slot))
                })?;
                self.write_luks2(&mut plan, &mut next)?;
                let stays = stays.into_iter().map(|(_, keyslot)| keyslot.area());
                let material = without(header.metadata.keyslots_area(), stays.collect());
                (Header::Luks2(next), material)
            }
        };
        let size = self.storage.geometry().size;
        for area in material {
            plan.wipe(area.start.min(size)..area.end.min(size))?;
        }
        Ok(self.commit(&plan, next)?)
    }

    pub(super) fn check_requirements(&self) -> Result<(), HeaderError> {
        match self.requirements() {
            requirements if requirements.is_empty() => Ok(()),
            requirements => Err(HeaderError::Requirements(requirements.join(", "))),
        }
    }
}

/// The parts of `whole` that are in none of `left_out`, which do not overlap.
fn without(whole: Range<u64>, mut left_out: Vec<Range<u64>>) -> Vec<Range<u64>> {
    left_out.sort_by_key(|range| range.start);
    let mut parts = Vec::new();
    let mut at = whole.start;
    for range in left_out {
        parts.push(at..range.start);
        at = range.end;
    }
    parts.push(at..whole.end);
    parts.retain(|range| !range.is_empty());
    parts
}

impl Header {
    /// The end of the bytes that a backup contains, on a storage of this size.
    pub(super) fn backup_end(&self, size: u64) -> u64 {
        match self {
            Self::Luks1(header) => {
                let areas = (0..luks1::KEYSLOTS).map(|slot| header.area(slot).end);
                let end = areas.max().unwrap_or(0);
                // The data may begin in the last block.
                let limit = match header.data_offset() {
                    0 => size,
                    offset => size.min(offset),
                };
                end.next_multiple_of(BLOCK as u64).min(limit)
            }
            Self::Luks2(header) => header.metadata.keyslots_area().end,
        }
    }

    fn uuid(&self) -> &str {
        match self {
            Self::Luks1(header) => &header.uuid,
            Self::Luks2(header) => &header.uuid,
        }
    }

    /// The offset of the data. 0 for a detached header.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        match self {
            Self::Luks1(header) => header.data_offset(),
            Self::Luks2(header) => header.metadata.data_offset(),
        }
    }
}

/// Refuses to replace a header that has the new key of data which is converted already.
fn check_not_converted(present: &Header) -> Result<(), HeaderError> {
    let Header::Luks2(header) = present else {
        return Ok(());
    };
    let nothing = Some(Progress::Clean { converted: 0 });
    let found = header.metadata.reencryption();
    match found.map(|found| found.map(|found| found.progress)) {
        Ok(None) => Ok(()),
        Ok(progress) if progress == nothing => Ok(()),
        Ok(_) | Err(_) => {
            let requirements = header.metadata.config().requirements.join(", ");
            Err(HeaderError::Requirements(requirements))
        }
    }
}

fn refuse_interrupted(options: &OpenOptions) -> Result<(), HeaderError> {
    match options.undo.store() {
        Some(undo) if undo.load().map_err(OpenError::Undo)?.is_some() => {
            Err(OpenError::Interrupted { undo: undo.name() }.into())
        }
        _ => Ok(()),
    }
}

/// The header in a backup that can be restored, and the present header, if there is a valid one.
fn restorable(
    storage: &dyn Backend,
    backup: &[u8],
    allow: RestoreOptions,
    options: &OpenOptions,
) -> Result<(Header, Option<Header>), HeaderError> {
    refuse_interrupted(options)?;
    let restored = backup_header(backup, &options.limits)?;
    let size = storage.geometry().size;
    let needed = restored.data_offset().max(backup.len() as u64);
    if size < needed {
        return Err(HeaderError::Mismatch(format!(
            "it needs {needed} bytes, the storage has {size}"
        )));
    }
    let present = match open::load(storage, &options.limits) {
        Ok(present) => Some(present.header),
        Err(OpenError::Io(error)) => return Err(error.into()),
        Err(OpenError::NotUnderstood(error)) => return Err(HeaderError::NotUnderstood(error)),
        // The size is in the metadata, whose checksum was compared.
        Err(OpenError::Header(error)) if error.field == "config.keyslots_size" => {
            return Err(HeaderError::NotUnderstood(error));
        }
        Err(_) => None,
    };
    if let Some(present) = &present {
        check_same_place(present, &restored)?;
        check_not_converted(present)?;
    }
    let volume = present.as_ref().map(Header::uuid);
    if volume != Some(restored.uuid()) {
        return match allow.other_uuid {
            true => Ok((restored, present)),
            false => Err(HeaderError::OtherUuid {
                backup: restored.uuid().into(),
                volume: volume.map(str::to_owned),
            }),
        };
    }
    let is_same = |present: &Header| is_same_encryption(present, &restored);
    if !allow.other_key && !present.as_ref().is_some_and(is_same) {
        return Err(HeaderError::OtherKey);
    }
    Ok((restored, present))
}

/// Whether the key of `restored` opens the data that `present` describes: they share a digest of
/// the volume key, and their ciphers and sector sizes are the same.
fn is_same_encryption(present: &Header, restored: &Header) -> bool {
    match (present, restored) {
        (Header::Luks1(present), Header::Luks1(restored)) => {
            let key = |header: &luks1::Header| (header.digest, header.digest_salt);
            key(present) == key(restored)
                && present.cipher_name == restored.cipher_name
                && present.cipher_mode == restored.cipher_mode
        }
        (Header::Luks2(present), Header::Luks2(restored)) => {
            let (present, restored) = (&present.metadata, &restored.metadata);
            let bound = |metadata: &luks2::Metadata| {
                let digests = metadata.digests().values();
                let digests = digests.filter(|digest| !digest.segments.is_empty());
                digests.cloned().collect::<Vec<_>>()
            };
            let there = bound(present);
            let mut ours = bound(restored).into_iter();
            let shares = ours.any(|ours| {
                let is_same = |digest: &luks2::Digest| {
                    (&digest.digest, &digest.salt) == (&ours.digest, &ours.salt)
                };
                there.iter().any(is_same)
            });
            let encryption = |segment: &luks2::CryptSegment| {
                (segment.encryption, segment.sector_size, segment.iv_tweak)
            };
            // Of a reencryption, nothing is converted.
            let now = match present.reencryption() {
                Ok(Some(found)) => found.previous.as_crypt().map(encryption),
                _ => present
                    .data_segment()
                    .ok()
                    .map(|(_, found)| encryption(found)),
            };
            let then = restored.data_segment().ok();
            let tagged = |metadata: &luks2::Metadata| {
                let segment = metadata.authenticated_segment().ok().flatten();
                segment.map(|found| (found.encryption, found.sector_size))
            };
            shares
                && now == then.map(|(_, found)| encryption(found))
                && tagged(present) == tagged(restored)
        }
        _ => false,
    }
}

/// The header in a backup. Both copies of a LUKS2 header have to be valid, and it may have no
/// requirements.
fn backup_header(backup: &[u8], limits: &Limits) -> Result<Header, HeaderError> {
    let loaded = open::load(&MemoryBackend::from_bytes(backup.to_vec()), limits)
        .map_err(HeaderError::Backup)?;
    if !matches!(loaded.health, Health::Good) {
        return Err(HeaderError::Mismatch(
            "its two copies of the header are not both valid and equal".into(),
        ));
    }
    if let Header::Luks2(header) = &loaded.header
        && !header.metadata.config().requirements.is_empty()
    {
        let requirements = header.metadata.config().requirements.join(", ");
        return Err(HeaderError::Mismatch(format!(
            "it was made with the requirements {requirements}"
        )));
    }
    Ok(loaded.header)
}

/// Checks that a backup describes the same place of the data. Otherwise restoring it would move the
/// volume.
fn check_same_place(present: &Header, restored: &Header) -> Result<(), HeaderError> {
    let (now, then) = (present.data_offset(), restored.data_offset());
    if now != then {
        return Err(HeaderError::Mismatch(format!(
            "its data begins at byte {then}, the volume's at {now}"
        )));
    }
    match (present, restored) {
        (Header::Luks1(_), Header::Luks1(_)) => Ok(()),
        (Header::Luks2(present), Header::Luks2(restored)) => {
            let (now, then) = (
                present.metadata.keyslots_area(),
                restored.metadata.keyslots_area(),
            );
            if now == then {
                Ok(())
            } else {
                Err(HeaderError::Mismatch(format!(
                    "its keyslots lie at bytes {} to {}, the volume's at {} to {}",
                    then.start, then.end, now.start, now.end
                )))
            }
        }
        (Header::Luks1(_), Header::Luks2(_)) => Err(HeaderError::Mismatch(
            "it is LUKS2, the volume LUKS1".into(),
        )),
        (Header::Luks2(_), Header::Luks1(_)) => Err(HeaderError::Mismatch(
            "it is LUKS1, the volume LUKS2".into(),
        )),
    }
}

/// Plans a restore: first key material, then the copies of the header. Only blocks that differ are
/// written.
fn restore_plan(
    storage: &dyn Backend,
    backup: &[u8],
    restored: &Header,
    something_to_lose: bool,
) -> Result<WritePlan, HeaderError> {
    let headers_end = match restored {
        Header::Luks1(_) => BLOCK,
        Header::Luks2(header) => usize::try_from(header.hdr_size * 2).unwrap_or(usize::MAX),
    };
    let present = door::read(storage, 0, backup.len())?;
    let differing = |from: usize, to: usize| {
        let to = to.min(backup.len());
        (from..to)
            .step_by(BLOCK)
            .filter_map(|start| {
                let end = (start + BLOCK).min(to);
                (backup[start..end] != present[start..end]).then_some(start..end)
            })
            .collect::<Vec<_>>()
    };
    let mut plan = WritePlan::default();
    let material = differing(headers_end, backup.len());
    // With two copies of the header and equal key material, the change is safe without an undo
    // record.
    let safe = material.is_empty() && matches!(restored, Header::Luks2(_));
    if something_to_lose && !safe {
        plan.in_place();
    }
    for block in material {
        plan.write(block.start as u64, backup[block].to_vec());
    }
    plan.flush();
    match restored {
        Header::Luks1(_) => {
            for block in differing(0, headers_end) {
                plan.write(block.start as u64, backup[block].to_vec());
            }
            plan.flush();
        }
        Header::Luks2(header) => {
            let one = usize::try_from(header.hdr_size).unwrap_or(usize::MAX);
            for copy in [0..one, one..headers_end] {
                plan.write(copy.start as u64, backup[copy].to_vec());
                plan.flush();
            }
        }
    }
    Ok(plan)
}
