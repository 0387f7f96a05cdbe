//! Changes the key or the cipher of a volume in place, or encrypts plaintext in place, so that no
//! cut loses data.
//!
//! The data is converted in zones. Before a zone is overwritten, what recovers it is durable in the
//! area of the reencryption: checksums of its old ciphertext, or a copy of it. Then the header
//! declares the zone hot. With F for a flush, a zone is:
//!
//! - checksum: area F; primary header F; secondary header and data F. The next zone begins with its
//!   area, under the header of this one: `area.rs` says how that is recognised.
//! - journal: the same, and then a header without a hot zone in both copies, each F. A journal must
//!   not be overwritten while a header declares its zone hot.
//!
//! At the end one commit removes everything of the reencryption. Only then old key material and the
//! area are overwritten. After a cut, `recover.rs` decides for each block whether it is converted.
//!
//! The storage is the one that cryptsetup leaves and takes. Checksums need blocks that the storage
//! writes atomically. A journal needs only 512-byte sectors that it does.

mod area;
mod error;
mod idle;
mod online;
mod open;
mod recover;
mod room;
mod side;
mod zone;

use std::sync::Arc;

use luksmith_formats::luks2::{Progress, Reencryption, Resilience};

pub use error::ReencryptError;
pub use idle::Idle;
pub use online::Online;
pub use open::open_to_read;
pub use room::{RoomError, RoomSettled, begin_with_room, is_room_record, settle_room};

use crate::backend::Backend;
use crate::container::{Container, ReencryptionKeys};
use crate::crypt::SectorCrypt;
use crate::layout::side::{OldSide, Side};
use area::{CopyOf, TRAILER};
use recover::Interrupted;
use side::{old_side_of, side_of};
use zone::Zone;

/// The largest zone by default, in bytes. A zone is in memory as a whole.
pub const DEFAULT_ZONE: u64 = 16 << 20;

/// The largest zone with a journal by default, in bytes.
pub const DEFAULT_JOURNAL_ZONE: u64 = 12 << 20;

/// What may be done in a reencryption that cannot be done in every case.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Resume {
    /// The largest zone, in bytes. `None` is the default. The area may allow only a smaller one.
    pub zone: Option<u64>,
    /// Goes on although blocks of the hot zone are neither old nor converted as far as the area
    /// tells. Their content may be lost.
    pub unverified_blocks: bool,
}

/// A reencryption in progress, whose keys are unlocked. No other program may have the header or the
/// data open.
pub struct Reencrypt {
    container: Container,
    data: Arc<dyn Backend>,
    found: Reencryption,
    old: Option<OldSide>,
    new: Arc<Side>,
    /// The end of what is converted and durable.
    at: u64,
    size: u64,
    zone: u64,
    /// The zone after the last one, as it was read. No other program writes to the data.
    ahead: Option<Prepared>,
}

/// A zone that was read, and its checksums.
struct Prepared {
    zone: Zone,
    sums: Vec<u8>,
}

impl Prepared {
    /// Reads a zone of the data.
    fn read(
        data: &dyn Backend,
        old: &OldSide,
        (start, length): (u64, u64),
        copy: CopyOf,
    ) -> Result<Self, ReencryptError> {
        let zone = Zone::read(data, old, start, length)?;
        let sums = copy.of(&zone);
        Ok(Self { zone, sums })
    }
}

impl std::fmt::Debug for Reencrypt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, size, zone, .. } = self;
        write!(
            formatter,
            "Reencrypt({at} of {size} bytes, zones of {zone})"
        )
    }
}

impl Reencrypt {
    /// Takes up the reencryption in `container`, whose data is on `data`, and recovers the zone in
    /// which it was interrupted.
    ///
    /// # Errors
    /// Returns [`ReencryptError`]. With [`ReencryptError::Unverified`] nothing has been written to
    /// the data.
    pub fn resume(
        container: Container,
        data: Arc<dyn Backend>,
        keys: &ReencryptionKeys,
        resume: Resume,
    ) -> Result<Self, ReencryptError> {
        Self::take_up(container, data, keys, resume, false)
    }

    /// As [`resume`](Self::resume), and records whether clients may write meanwhile.
    fn take_up(
        container: Container,
        data: Arc<dyn Backend>,
        keys: &ReencryptionKeys,
        resume: Resume,
        online: bool,
    ) -> Result<Self, ReencryptError> {
        let found = container.reencryption().map_err(ReencryptError::Format)?;
        let found = found.ok_or(ReencryptError::NotPending)?;
        let size = data_size(&found, &container, &*data)?;
        let new_key = keys.following().ok_or(ReencryptError::NotPending)?;
        let new = Arc::new(side_of(&found.following, new_key)?);
        let old = old_side_of(&found.previous, keys)?;
        let mut this = Self {
            at: 0,
            zone: 0,
            ahead: None,
            container,
            data,
            found,
            old,
            new,
            size,
        };
        if this.found.progress != Progress::Finished {
            this.zone = this.zone_length(resume.zone)?;
        }
        // What is refused changes nothing.
        if this.found.progress != Progress::Finished {
            this.check_resilience()?;
        }
        if let Progress::Hot { start, length } = this.found.progress {
            let unverified = resume.unverified_blocks;
            this.interrupted()?.check(start, length, unverified)?;
        }
        // A stale copy would be used if the next write of the other one is cut.
        this.container
            .mend_copies()
            .map_err(ReencryptError::Commit)?;
        match this.found.progress {
            Progress::Finished => {
                this.at = size;
                return Ok(this);
            }
            Progress::Clean { converted } => this.at = converted,
            Progress::Hot { start, length } => {
                let interrupted = this.interrupted()?;
                this.at = interrupted.recover(start, length, resume.unverified_blocks)?;
                this.flush()?;
                this.post()?;
            }
        }
        if this.found.online != online {
            this.container.commit_online(online)?;
            this.found.online = online;
        }
        Ok(this)
    }

    fn old(&self) -> Result<&OldSide, ReencryptError> {
        self.old.as_ref().ok_or(ReencryptError::NotPending)
    }

    fn interrupted(&self) -> Result<Interrupted<'_>, ReencryptError> {
        Ok(Interrupted {
            container: &self.container,
            data: &*self.data,
            found: &self.found,
            old: self.old()?,
            new: &self.new,
            size: self.size,
            unit: self.unit(),
        })
    }

    /// The bytes of the data that are converted.
    #[must_use]
    pub fn converted(&self) -> u64 {
        self.at.min(self.size)
    }

    /// The size of the data in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The size of a zone in bytes.
    #[must_use]
    pub fn zone(&self) -> u64 {
        self.zone
    }

    /// Converts the next zone, durably. Returns its length, which is 0 if everything is converted.
    /// Two threads work on that.
    ///
    /// # Errors
    /// Returns [`ReencryptError`]. After that, the reencryption has to be taken up again.
    pub fn step(&mut self) -> Result<u64, ReencryptError> {
        let length = self.size.saturating_sub(self.at).min(self.zone);
        if length == 0 {
            return Ok(0);
        }
        let copy = self.copy()?;
        self.convert_next(length, copy)?;
        if let CopyOf::Journal = copy {
            self.post()?;
        }
        Ok(length)
    }

    /// Converts a zone. Another thread reads the zone after it meanwhile, and hashes it.
    fn convert_next(&mut self, length: u64, copy: CopyOf) -> Result<(), ReencryptError> {
        let (start, next) = (self.at, self.at + length);
        let data = self.data.clone();
        let old = self.old.clone().ok_or(ReencryptError::NotPending)?;
        let prepare = |start, length| Prepared::read(&*data, &old, (start, length), copy);
        let prepared = match self.ahead.take() {
            Some(ahead) if (ahead.zone.start, ahead.zone.length) == (start, length) => ahead,
            _ => prepare(start, length)?,
        };
        let after = self.size.saturating_sub(next).min(self.zone);
        let (converted, ahead) = std::thread::scope(|scope| {
            let prepare = || prepare(next, after);
            let thread =
                (after > 0).then(|| std::thread::Builder::new().spawn_scoped(scope, prepare));
            let converted = self.convert(prepared, copy);
            // If it failed, the next step reads the zone itself, and reports the error.
            let ahead = thread.and_then(|thread| thread.ok()?.join().ok()?.ok());
            (converted, ahead)
        });
        converted?;
        self.ahead = ahead;
        self.at = next;
        Ok(())
    }

    /// Converts a zone that was read, in the order of writes that survives a cut.
    fn convert(&mut self, prepared: Prepared, copy: CopyOf) -> Result<(), ReencryptError> {
        let Prepared { zone, sums } = prepared;
        let (start, length) = (zone.start, zone.length);
        copy.write(&self.container, &self.found, &zone, &sums)?;
        self.container.header_storage().flush()?;
        let hot = Progress::Hot { start, length };
        self.container.commit_first_copy(hot, self.size)?;
        self.container.write_second_copy()?;
        zone.convert(&*self.data, self.old()?, &self.new)?;
        self.flush()
    }

    /// What of a zone is kept in the area.
    fn copy(&self) -> Result<CopyOf, ReencryptError> {
        match &self.found.state.resilience {
            Resilience::Checksum { hash, sector_size } => CopyOf::checksums(*hash, *sector_size),
            Resilience::Journal => Ok(CopyOf::Journal),
            _ => Err(ReencryptError::Resilience),
        }
    }

    /// Ends a reencryption whose data is all converted, and returns the container. The old
    /// passphrases open nothing any more, except where a new keyslot has the same.
    ///
    /// # Errors
    /// Returns [`ReencryptError`]; [`ReencryptError::Unfinished`] if zones are left.
    pub fn finish(mut self) -> Result<Container, ReencryptError> {
        if self.at < self.size {
            return Err(ReencryptError::Unfinished);
        }
        self.flush()?;
        let areas = self.container.end_reencryption()?;
        self.container.wipe_areas(areas)?;
        Ok(self.container)
    }

    /// Declares that no zone is hot, if some data is left after the last one. If none is left, the
    /// commit at the end says so.
    fn post(&mut self) -> Result<(), ReencryptError> {
        if self.at < self.size {
            let converted = self.at;
            let progress = Progress::Clean { converted };
            self.container.commit_progress(progress, self.size)?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), ReencryptError> {
        self.data.flush()?;
        if !is_same(self.container.header_storage(), &self.data) {
            self.container.header_storage().flush()?;
        }
        Ok(())
    }

    fn check_resilience(&self) -> Result<(), ReencryptError> {
        check_resilience(&self.found, self.size, self.unit())
    }

    fn unit(&self) -> u64 {
        unit(&self.found, &*self.data)
    }

    fn zone_length(&self, wanted: Option<u64>) -> Result<u64, ReencryptError> {
        let area = self.found.state.area.clone();
        let room = area.end - area.start;
        let (most, default) = match &self.found.state.resilience {
            Resilience::Checksum { hash, sector_size } => {
                let checksums = room.saturating_sub(TRAILER as u64) / hash.size() as u64;
                (checksums * u64::from(*sector_size), DEFAULT_ZONE)
            }
            _ => (room, DEFAULT_JOURNAL_ZONE),
        };
        let unit = self.unit();
        let length = wanted.unwrap_or(default).min(most) / unit * unit;
        match length {
            0 => Err(ReencryptError::ZoneTooSmall { unit }),
            length => Ok(length),
        }
    }
}

fn unit(found: &Reencryption, data: &dyn Backend) -> u64 {
    zone_unit(&found.state.resilience, found.sector_size(), data)
}

/// The unit of a zone in bytes: whole sectors, of which the larger ones of both sides have
/// `sector_size` bytes, whole checksums, whole blocks.
#[must_use]
pub fn zone_unit(resilience: &Resilience, sector_size: u32, data: &dyn Backend) -> u64 {
    let checksum = match resilience {
        Resilience::Checksum { sector_size, .. } => *sector_size,
        _ => 512,
    };
    let block = data.geometry().block_size;
    u64::from(sector_size.max(checksum).max(block))
}

/// Checks before a reencryption begins that data of `size` bytes can be converted in zones of
/// `zone` bytes, whose [`zone_unit`] is `unit`.
///
/// # Errors
/// Returns [`ReencryptError`].
pub fn check_zones(
    resilience: &Resilience,
    (zone, unit): (u64, u64),
    size: u64,
) -> Result<(), ReencryptError> {
    if zone < unit {
        return Err(ReencryptError::ZoneTooSmall { unit });
    }
    if !size.is_multiple_of(unit) {
        return Err(ReencryptError::SizeNotWhole { size, unit });
    }
    match resilience {
        Resilience::Checksum { hash, sector_size } => {
            CopyOf::checksums(*hash, *sector_size).map(drop)
        }
        _ => Ok(()),
    }
}

/// Checks that the zones of the data are protected in a way that is supported here.
fn check_resilience(found: &Reencryption, size: u64, unit: u64) -> Result<(), ReencryptError> {
    if !size.is_multiple_of(unit) {
        return Err(ReencryptError::SizeNotWhole { size, unit });
    }
    match &found.state.resilience {
        Resilience::Journal if found.is_encryption() => Err(ReencryptError::JournalOfPlaintext),
        Resilience::Journal => Ok(()),
        Resilience::Checksum { hash, sector_size } => {
            CopyOf::checksums(*hash, *sector_size)?;
            if *sector_size < found.sector_size() || u64::from(*sector_size) > zone::PIECE {
                return Err(ReencryptError::Resilience);
            }
            Ok(())
        }
        _ => Err(ReencryptError::Resilience),
    }
}

/// The size of the area for zones of `zone` bytes: checksums of `block` bytes each, or a journal.
#[must_use]
pub fn area_size(resilience: &Resilience, zone: u64) -> u64 {
    let needed = match resilience {
        Resilience::Checksum { hash, sector_size } => {
            let count = zone.div_ceil(u64::from(*sector_size));
            count.saturating_mul(hash.size() as u64) + TRAILER as u64
        }
        _ => zone,
    };
    needed.next_multiple_of(4096)
}

fn is_same(one: &Arc<dyn Backend>, other: &Arc<dyn Backend>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

/// The size of the data in bytes, on its storage.
fn data_size(
    found: &Reencryption,
    container: &Container,
    data: &dyn Backend,
) -> Result<u64, ReencryptError> {
    let offset = found.previous.offset();
    if offset == 0 && std::ptr::addr_eq(data, &**container.header_storage()) {
        return Err(ReencryptError::Detached);
    }
    let storage = data.geometry().size;
    let fixed = found.fixed_size();
    let needed = offset.saturating_add(match found.progress {
        Progress::Hot { start, length } => fixed.unwrap_or(0).max(start.saturating_add(length)),
        Progress::Clean { converted } => fixed.unwrap_or(0).max(converted),
        Progress::Finished => fixed.unwrap_or(0),
    });
    if storage < needed {
        return Err(ReencryptError::TooSmall {
            size: storage,
            needed,
        });
    }
    Ok(fixed.unwrap_or(storage - offset))
}

/// The cipher of a side, for a check before anything is written.
///
/// # Errors
/// Returns the error of the cipher.
pub fn check_cipher(
    spec: luksmith_formats::CipherSpec,
    sector_size: u32,
    key_size: usize,
) -> Result<(), ReencryptError> {
    let key = crate::secret::VolumeKey::random(key_size)?;
    SectorCrypt::new(spec, sector_size, &key)?;
    Ok(())
}
