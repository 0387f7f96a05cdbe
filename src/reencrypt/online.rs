//! A reencryption beside clients of the volume.
//!
//! The order of writes is that of `mod.rs`. Three rules make it safe beside clients, whose writes
//! take exclusive range locks:
//!
//! - From the reading of a zone until the header durably declares it hot, no client writes to it.
//!   So what recovers the zone matches what is on the storage.
//! - With checksums, clients write to the hot zone with the new key, and each piece of it is
//!   converted under an exclusive lock. After a cut, a block with another checksum is what a client
//!   wrote. The header records, before the first client, that there may be such blocks.
//! - With a journal, no client writes to the zone until the header declares it cold: after a cut
//!   the journal is written over it.
//!
//! One range lock is held at a time. Clients go first: beside them, this rests as long as it works.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use luksmith_formats::luks2::{Progress, Reencryption, Resilience};

use super::area::CopyOf;
use super::error::ReencryptError;
use super::idle::Idle;
use super::side::convert;
use super::zone::{Zone, read_undecided};
use super::{DEFAULT_ZONE, Prepared, Reencrypt, Resume, is_same};
use crate::backend::Backend;
use crate::container::{Container, ReencryptionKeys};
use crate::layout::side::OldSide;
use crate::layout::two_sides::{Block, TwoSides};
use crate::volume::Volume;

/// The largest zone with a journal, in bytes. No client writes to it while it is converted.
const LARGEST_JOURNAL_ZONE: u64 = 4 << 20;
/// The first zone in bytes. Zones are smaller only if that much cannot be read fast enough: what
/// flushes take does not depend on the size.
const FIRST_ZONE: u64 = 1 << 20;
/// The smallest zone in bytes.
const LEAST_ZONE: u64 = 64 << 10;
/// What is converted under one lock, in bytes.
const LOCKED: u64 = 1 << 20;
/// A zone after which clients waited for longer is followed by one of half its size.
const LONG_PAUSE: Duration = Duration::from_millis(30);
/// A zone after which clients waited for less is followed by a larger one.
const SHORT_PAUSE: Duration = Duration::from_millis(15);
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_millis(50);

/// A reencryption in progress whose volume clients use. No other program may have the header or the
/// data open.
#[derive(Debug)]
pub struct Online {
    engine: Reencrypt,
    volume: Arc<Volume>,
    sides: Arc<TwoSides>,
    /// The size of the next zone, and that of the largest one.
    zone: u64,
    largest: u64,
    /// Whether the header declares a zone hot that is converted, durably.
    is_converted: bool,
    ended: bool,
    longest_pause: Duration,
}

impl Online {
    /// Takes up the reencryption in `container`, whose data is on `data`, recovers the zone in
    /// which it was interrupted, and records that it goes on beside clients.
    ///
    /// # Errors
    /// The same as for [`Reencrypt::resume`].
    pub fn resume(
        container: Container,
        data: Arc<dyn Backend>,
        keys: &ReencryptionKeys,
        resume: Resume,
    ) -> Result<Self, ReencryptError> {
        let found = container.reencryption().map_err(ReencryptError::Format)?;
        if found.is_some_and(|found| found.is_encryption()) {
            return Err(ReencryptError::OnlyOffline);
        }
        let engine = Reencrypt::take_up(container, data, keys, resume, true)?;
        let finished = engine.found.progress == Progress::Finished;
        let (unit, new) = (engine.unit(), engine.new.clone());
        // The old side of data that is all converted is never used.
        let old = match engine.old.clone() {
            Some(old) => old,
            None => OldSide::Encrypted(new.clone()),
        };
        let unit = match finished {
            true => u64::from(new.crypt.sector_size()),
            false => unit,
        };
        let size = engine.size - engine.size % unit;
        let sides = TwoSides::new(
            engine.data.clone(),
            old,
            Some(new),
            unit,
            engine.at,
            Vec::new(),
        );
        let sides = Arc::new(sides);
        let volume = Arc::new(Volume::of_two_sides(sides.clone(), size, false)?);
        let mut this = Self::of(engine, volume, sides)?;
        if this.engine.at >= this.engine.size {
            // A journal must not be written over what clients write to the last zone.
            this.finish()?;
        }
        Ok(this)
    }

    /// Goes on with the reencryption that [`Idle::begin`] has begun.
    ///
    /// # Errors
    /// The same as for [`resume`](Self::resume). Clients can go on, and it can be taken up when the
    /// volume is opened again.
    pub fn of_begun(
        idle: Idle,
        keys: &ReencryptionKeys,
        resume: Resume,
    ) -> Result<Self, ReencryptError> {
        let engine = Reencrypt::take_up(idle.container, idle.data, keys, resume, true)?;
        idle.sides.begin(engine.new.clone());
        Self::of(engine, idle.volume, idle.sides)
    }

    /// What goes on with `engine` on a volume whose new side is set.
    fn of(
        engine: Reencrypt,
        volume: Arc<Volume>,
        sides: Arc<TwoSides>,
    ) -> Result<Self, ReencryptError> {
        let unit = sides.block();
        let most = match &engine.found.state.resilience {
            Resilience::Checksum { .. } => DEFAULT_ZONE,
            _ => LARGEST_JOURNAL_ZONE,
        };
        let largest = match engine.found.progress {
            Progress::Finished => 0,
            _ => engine.zone.min(most) / unit * unit,
        };
        if largest == 0 && engine.found.progress != Progress::Finished {
            return Err(ReencryptError::ZoneTooSmall { unit });
        }
        Ok(Self {
            zone: largest.min(FIRST_ZONE.next_multiple_of(unit)),
            engine,
            volume,
            sides,
            largest,
            is_converted: false,
            ended: false,
            longest_pause: Duration::ZERO,
        })
    }

    /// The volume after the end, whose clients go on. Another reencryption can begin there.
    ///
    /// # Errors
    /// Returns [`ReencryptError::Unfinished`] if the reencryption has not ended.
    pub fn into_idle(self) -> Result<Idle, ReencryptError> {
        match self.ended || self.engine.found.progress == Progress::Finished {
            true => Ok(Idle {
                container: self.engine.container,
                data: self.engine.data,
                volume: self.volume,
                sides: self.sides,
            }),
            false => Err(ReencryptError::Unfinished),
        }
    }

    /// The volume, for clients.
    #[must_use]
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// The header.
    #[must_use]
    pub fn container(&self) -> &Container {
        &self.engine.container
    }

    /// The reencryption as the header describes it at first.
    #[must_use]
    pub fn description(&self) -> &Reencryption {
        &self.engine.found
    }

    /// The bytes of the data that are converted.
    #[must_use]
    pub fn converted(&self) -> u64 {
        self.engine.converted()
    }

    /// The size of the data in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.engine.size()
    }

    /// The keyslots that open the volume after the end.
    #[must_use]
    pub fn keyslots(&self) -> Vec<u32> {
        let digest = self.engine.found.following_digest;
        let mut slots = self.engine.container.keyslots_of_digest(digest);
        slots.sort_unstable();
        slots
    }

    /// The size of the next zone in bytes.
    #[must_use]
    pub fn zone(&self) -> u64 {
        self.zone
    }

    /// The longest time for which writes to a zone had to wait so far.
    #[must_use]
    pub fn longest_pause(&self) -> Duration {
        self.longest_pause
    }

    /// Converts the next zone, durably. Returns its length, which is 0 if everything is converted.
    ///
    /// # Errors
    /// Returns [`ReencryptError`]. The reencryption has to be taken up again after that, when the
    /// volume is opened again. Clients can go on, unless data may be lost: then every change fails.
    pub fn step(&mut self) -> Result<u64, ReencryptError> {
        let start = self.engine.at;
        let length = self.engine.size.saturating_sub(start).min(self.zone);
        if length == 0 {
            return Ok(0);
        }
        let zone = start..start + length;
        let waited = match self.engine.copy()? {
            CopyOf::Journal => self.journal_zone(&zone)?,
            copy @ CopyOf::Checksums { .. } => self.checksum_zone(&zone, copy)?,
        };
        self.adapt(waited);
        Ok(length)
    }

    /// Ends a reencryption whose data is all converted. The volume stays in use.
    ///
    /// # Errors
    /// Returns [`ReencryptError`]; [`ReencryptError::Unfinished`] if zones are left.
    pub fn finish(&mut self) -> Result<(), ReencryptError> {
        if self.engine.at < self.engine.size {
            return Err(ReencryptError::Unfinished);
        }
        if !self.ended {
            self.flush()?;
            self.end()?;
        }
        Ok(())
    }

    /// Makes the header say what is converted, before the reencryption rests for long.
    ///
    /// # Errors
    /// Returns [`ReencryptError`].
    pub fn rest(&mut self) -> Result<(), ReencryptError> {
        if self.is_converted {
            let engine = &mut self.engine;
            self.sides.crucial(|| engine.post())?;
            self.is_converted = false;
        }
        Ok(())
    }

    /// Converts a zone whose checksums recover it. Returns how long clients could not write to it.
    fn checksum_zone(&mut self, zone: &Range<u64>, copy: CopyOf) -> Result<Waited, ReencryptError> {
        let volume = self.volume.clone();
        let began = Instant::now();
        let held = volume.hold_writers(zone.clone());
        self.is_converted = false;
        let (prepared, reading) = self.declare(zone, copy)?;
        self.sides.declare(zone);
        drop(held);
        let whole = began.elapsed();
        self.second_copy()?;
        let mut at = zone.start;
        while at < zone.end {
            let piece = at..zone.end.min(at + LOCKED);
            let (began, others) = (Instant::now(), volume.locks());
            let held = volume.hold_all(piece.clone());
            let converted = self.convert_piece(&prepared, &piece);
            drop(held);
            converted?;
            // One of the locks is this one.
            if volume.locks() > others + 1 {
                std::thread::sleep(began.elapsed().min(LONGEST_REST));
            }
            at = piece.end;
        }
        self.flush()?;
        self.sides.advance(zone.end);
        self.engine.at = zone.end;
        self.is_converted = true;
        Ok(Waited { reading, whole })
    }

    /// Converts the blocks of a piece that are old. The caller has locked it exclusively.
    fn convert_piece(&self, zone: &Zone, piece: &Range<u64>) -> Result<(), ReencryptError> {
        for (range, block) in self.sides.not_new(piece) {
            match block {
                Block::New => {}
                Block::Old => self.convert_old(zone, &range)?,
                Block::Unknown => {
                    // A write of a client failed: the block is old, or what the client wrote.
                    let size = self.sides.block();
                    for at in (range.start..range.end).step_by(usize::try_from(size).unwrap_or(1)) {
                        let block = at..at + size;
                        let there = read_undecided(&*self.engine.data, &self.engine.new, &block)?;
                        match there.as_slice() == zone.part(&block).as_slice() {
                            true => self.convert_old(zone, &block)?,
                            false => self.sides.written(&block, true),
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn convert_old(&self, zone: &Zone, range: &Range<u64>) -> Result<(), ReencryptError> {
        let (old, new) = (self.engine.old()?, &self.engine.new);
        let sectors = convert(old, new, range.start, zone.part(range))?;
        let written = self.engine.data.write_at(new.place(range.start), &sectors);
        self.sides.written(range, written.is_ok());
        Ok(written?)
    }

    /// Converts a zone that a journal recovers. Returns how long clients could not write to it.
    fn journal_zone(&mut self, zone: &Range<u64>) -> Result<Waited, ReencryptError> {
        let volume = self.volume.clone();
        let began = Instant::now();
        let mut held = volume.hold_writers(zone.clone());
        let (prepared, reading) = self.declare(zone, CopyOf::Journal)?;
        // From here on, the zone is lost without its journal.
        let sides = self.sides.clone();
        let areas = sides.crucial::<_, ReencryptError>(|| {
            self.engine.container.write_second_copy()?;
            held.make_exclusive();
            let old = self.engine.old()?;
            let converted = prepared.convert(&*self.engine.data, old, &self.engine.new);
            if let Err(error) = converted {
                sides.declare(zone);
                sides.written(zone, false);
                return Err(error);
            }
            sides.advance(zone.end);
            self.engine.at = zone.end;
            held.make_shared();
            self.engine.flush()?;
            // Without a header that declares the zone cold, the journal would be written over what
            // clients write to it from now on.
            match zone.end < self.engine.size {
                true => self.engine.post().map(|()| None),
                false => Ok(Some(self.engine.container.end_reencryption()?)),
            }
        })?;
        drop(held);
        let whole = began.elapsed();
        if let Some(areas) = areas {
            self.settle();
            self.engine.container.wipe_areas(areas)?;
        }
        Ok(Waited { reading, whole })
    }

    /// Reads a zone, and declares it hot in the primary copy of the header, durably. Clients do not
    /// write to it meanwhile. Returns how long the reading took.
    fn declare(
        &mut self,
        zone: &Range<u64>,
        copy: CopyOf,
    ) -> Result<(Zone, Duration), ReencryptError> {
        let began = Instant::now();
        let (start, length) = (zone.start, zone.end - zone.start);
        let engine = &mut self.engine;
        let old = engine.old()?;
        let Prepared { zone, sums } = Prepared::read(&*engine.data, old, (start, length), copy)?;
        let reading = began.elapsed();
        copy.write(&engine.container, &engine.found, &zone, &sums)?;
        // What clients wrote to the zone has to be as durable as its checksums.
        self.flush()?;
        let hot = Progress::Hot { start, length };
        let engine = &mut self.engine;
        let commit = || Ok(engine.container.commit_first_copy(hot, engine.size)?);
        self.sides.crucial::<_, ReencryptError>(commit)?;
        Ok((zone, reading))
    }

    fn second_copy(&mut self) -> Result<(), ReencryptError> {
        let container = &mut self.engine.container;
        self.sides.crucial(|| Ok(container.write_second_copy()?))
    }

    fn end(&mut self) -> Result<(), ReencryptError> {
        let container = &mut self.engine.container;
        let end = || Ok(container.end_reencryption()?);
        let areas = self.sides.crucial::<_, ReencryptError>(end)?;
        self.settle();
        Ok(self.engine.container.wipe_areas(areas)?)
    }

    /// The header has no reencryption any more.
    fn settle(&mut self) {
        let _all = self.volume.hold_all(0..u64::MAX);
        self.sides.settle();
        self.ended = true;
        self.is_converted = false;
    }

    /// Makes the data and the header durable.
    fn flush(&self) -> Result<(), ReencryptError> {
        self.sides.flush()?;
        let header = self.engine.container.header_storage();
        if !is_same(header, &self.engine.data) {
            self.sides.crucial(|| header.flush())?;
        }
        Ok(())
    }

    /// Chooses the size of the next zone.
    fn adapt(&mut self, Waited { reading, whole }: Waited) {
        self.longest_pause = self.longest_pause.max(whole);
        let least = match reading > LONG_PAUSE {
            true => LEAST_ZONE,
            false => FIRST_ZONE.min(self.zone),
        };
        let wanted = match whole {
            pause if pause > LONG_PAUSE => (self.zone / 2).max(least),
            pause if pause < SHORT_PAUSE => self.zone + self.zone / 4,
            _ => self.zone,
        };
        self.zone = wanted
            .next_multiple_of(self.sides.block())
            .min(self.largest);
    }
}

/// How long clients could not write to a zone.
struct Waited {
    /// While it was read.
    reading: Duration,
    /// In all.
    whole: Duration,
}
