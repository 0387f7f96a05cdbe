//! Gives a volume another volume key or another cipher in place, or goes on with that. `encrypt`
//! begins with plaintext.

mod begin;
#[cfg(feature = "nbd")]
pub mod control;
#[cfg(feature = "nbd")]
mod controlled;
pub mod encrypt;
#[cfg(feature = "nbd")]
pub mod follow;
mod options;
#[cfg(feature = "nbd")]
mod request;
pub mod served;
mod target;

use std::fs::File;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use luksmith_formats::limits::Limits;
use luksmith_formats::luks2::{Progress, Reencryption};

pub use options::{Options, Protection};

use crate::backend::Backend;
use crate::container::{Container, ReencryptionKeys, Version};
use crate::reencrypt::{Reencrypt, ReencryptError, Resume};
use crate::secret::Passphrase;
use crate::task::destination::Destination;
use crate::task::open::Image;
use crate::task::storage::Storage;
use crate::task::trust::kept::Task;
use crate::task::{Advice, Error, Kind, Watch, Work, Working};
use target::{Access, Begun, Target, Zones, new_target, pending_target};

/// How a reencryption ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reencrypted {
    /// Whether everything is converted, and the old key is gone.
    pub finished: bool,
    /// Whether the data was plaintext before.
    pub was_plain: bool,
    /// The bytes that are converted.
    pub converted: u64,
    /// The size of the volume in bytes.
    pub size: u64,
    /// The keyslots that open the volume now, or will after the end.
    pub keyslots: Vec<u32>,
    /// The keyslots of the old key that have no successor: their passphrases open nothing after the
    /// end.
    pub dropped: Vec<u32>,
}

/// What a reencryption will do. Nothing is changed before [`run`](Self::run).
pub struct Plan {
    container: Container,
    data: Storage,
    options: Options,
    pending: Option<Reencryption>,
    target: Target,
    zones: Zones,
    /// The devices, open exclusively, so that the kernel neither mounts nor maps them.
    claimed: Vec<File>,
}

impl Plan {
    /// Looks at a volume, which no other program may have open, and at a reencryption that is in
    /// progress there. `undo` names the file of an undo record of another change.
    ///
    /// # Errors
    /// What the storage reports; a volume that cannot be reencrypted; options that contradict the
    /// volume, or the reencryption that is in progress.
    pub fn look(
        image: &Image,
        undo: Option<&Path>,
        options: Options,
        limits: Limits,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        let claimed = claim(image)?;
        let (container, data) = image.open_data_to_write(undo, limits, watch)?;
        if data.qcow2.is_some() || container.version() == Version::Luks1 {
            let message = "only a LUKS2 volume is reencrypted in place";
            return Err(Error::new(Kind::Unsupported, message)
                .about(&image.location)
                .advise(Advice::CopyInstead));
        }
        image.refuse_header_as_data(&container, &data)?;
        let about = |error: Error| error.about(&image.location);
        let pending = container
            .reencryption()
            .map_err(Error::from)
            .map_err(about)?;
        options.check(&container)?;
        let target = match &pending {
            Some(found) => {
                let begun = Begun::new(&container, found.clone());
                pending_target(&begun, &options).map_err(about)?
            }
            None if options.only_resume => {
                let message = "no reencryption is in progress";
                return Err(about(Error::parameters(message)));
            }
            None => new_target(&container, &data, &options)?,
        };
        data.refuse_tags(&container, Task::Reencryption)
            .map_err(about)?;
        let zones = Zones::of(pending.as_ref(), &target, &data, &options, Access::Sole);
        Ok(Self {
            zones: zones.map_err(about)?,
            container,
            data,
            options,
            pending,
            target,
            claimed,
        })
    }

    /// The header of the volume.
    #[must_use]
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// Whether a reencryption is in progress, which is gone on with.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether a reencryption was interrupted in a zone, or between its last zone and its end.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        let found = self.pending.as_ref();
        found.is_some_and(|found| !matches!(found.progress, Progress::Clean { .. }))
    }

    /// Whether the data is plaintext, which is being encrypted in place.
    #[must_use]
    pub fn is_encryption(&self) -> bool {
        let pending = self.pending.as_ref();
        pending.is_some_and(Reencryption::is_encryption)
    }

    /// Whether the sectors become larger. What the guest has stored in blocks that are smaller than
    /// a sector can no longer be used: a filesystem with such blocks cannot be mounted.
    #[must_use]
    pub fn enlarges_sectors(&self) -> bool {
        self.pending.is_none() && self.target.enlarges_sectors()
    }

    /// Begins the reencryption or takes it up, and goes on to its end, or until the interrupt is
    /// set. Then the zone that is being converted is finished first.
    ///
    /// # Errors
    /// Returns [`Kind::WrongPassphrase`] if `passphrases` do not open both keys, and
    /// [`Kind::Interrupted`] if it was stopped. What is converted stays so, and it can be taken up
    /// again.
    pub fn run(
        mut self,
        passphrases: &[Passphrase],
        watch: &dyn Watch,
    ) -> Result<Reencrypted, Error> {
        // Held until the end.
        let _claimed = std::mem::take(&mut self.claimed);
        let (keys, dropped) = match self.pending {
            Some(_) => {
                let interrupt = watch.interrupt();
                let keys = self.container.unlock_reencryption(passphrases, interrupt)?;
                self.fill_holes()?;
                (keys, Vec::new())
            }
            None => self.begin(passphrases, watch)?,
        };
        if self.options.only_begin {
            let converted = self.pending.as_ref().map_or(0, |found| converted(found, 0));
            return Ok(Reencrypted {
                finished: false,
                was_plain: self.is_encryption(),
                converted,
                size: self.target.size,
                keyslots: new_keyslots(&self.container)?,
                dropped,
            });
        }
        let done = go_on(self.container, &self.data, &keys, &self.options, watch)?;
        Ok(Reencrypted { dropped, ..done })
    }

    /// Recovers the zone in which the reencryption was interrupted, and ends it if everything is
    /// converted. Converts no other zone.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub fn recover(
        mut self,
        passphrases: &[Passphrase],
        watch: &dyn Watch,
    ) -> Result<Reencrypted, Error> {
        // Held until the end.
        let _claimed = std::mem::take(&mut self.claimed);
        let keys = self
            .container
            .unlock_reencryption(passphrases, watch.interrupt())?;
        self.fill_holes()?;
        let keyslots = new_keyslots(&self.container)?;
        let was_plain = self
            .pending
            .as_ref()
            .is_some_and(Reencryption::is_encryption);
        let resume = Resume {
            zone: None,
            unverified_blocks: self.options.unverified_blocks,
        };
        let resumed = Reencrypt::resume(self.container, self.data.backend.clone(), &keys, resume);
        let engine = resumed.map_err(not_resumed)?;
        let (converted, size) = (engine.converted(), engine.size());
        let finished = converted == size;
        if finished {
            engine.finish()?;
        }
        Ok(Reencrypted {
            finished,
            was_plain,
            converted,
            size,
            keyslots,
            dropped: Vec::new(),
        })
    }

    /// Gives the file its full size on the disk, so that no zone fails for lack of space. A
    /// passphrase has opened the volume before, so a wrong one costs no space.
    fn fill_holes(&self) -> Result<(), Error> {
        match self.options.only_begin {
            true => Ok(()),
            false => Ok(self.data.fill_holes()?),
        }
    }

    fn begin(
        &mut self,
        passphrases: &[Passphrase],
        watch: &dyn Watch,
    ) -> Result<(ReencryptionKeys, Vec<u32>), Error> {
        let (container, target, options) = (&self.container, &self.target, &self.options);
        let matched = begin::matched(container, target, options, passphrases, watch)?;
        self.fill_holes()?;
        let what = (target, &self.zones);
        let keyslots = (&matched, passphrases);
        let prepared = begin::prepare(container, what, options, keyslots, false, watch)?;
        let keys = self.container.commit_reencryption(prepared)?;
        Ok((keys, matched.others))
    }
}

/// Converts the data to its end, or until the interrupt is set.
fn go_on(
    container: Container,
    data: &Storage,
    keys: &ReencryptionKeys,
    options: &Options,
    watch: &dyn Watch,
) -> Result<Reencrypted, Error> {
    let resume = Resume {
        zone: options.zone,
        unverified_blocks: options.unverified_blocks,
    };
    let found = container.reencryption()?;
    let was_plain = found.is_some_and(|found| found.is_encryption());
    let resumed = Reencrypt::resume(container, data.backend.clone(), keys, resume);
    let mut engine = resumed.map_err(not_resumed)?;
    let working = Working::begin(watch, Work::Reencrypt, Some(engine.size()));
    working.resume(engine.converted());
    let (began, first) = (Instant::now(), engine.converted());
    loop {
        let (converted, size) = (engine.converted(), engine.size());
        if converted < size && watch.interrupt().is_set() {
            let what = format!("stopped after {converted} of {size} bytes");
            return Err(Error::interrupted()
                .about(what)
                .advise(Advice::ReencryptAgain));
        }
        let done = engine
            .step()
            .map_err(|error| Error::from(error).advise(Advice::ReencryptAgain))?;
        if done == 0 {
            break;
        }
        working.advance(done);
        if let Some(rate) = options.rate
            && engine.converted() < size
        {
            let due = Duration::from_secs_f64((converted + done - first) as f64 / rate as f64);
            wait_until(began + due, watch);
        }
    }
    let size = engine.size();
    let container = engine.finish()?;
    working.finish();
    let bound = container.keyslots().into_iter().filter(|slot| slot.bound);
    Ok(Reencrypted {
        finished: true,
        was_plain,
        converted: size,
        size,
        keyslots: bound.map(|slot| slot.slot).collect(),
        dropped: Vec::new(),
    })
}

/// Claims the block devices of the data and of the header. One that is mounted, or that
/// device-mapper uses, is refused.
fn claim(image: &Image) -> Result<Vec<File>, Error> {
    let mut claimed = Vec::new();
    for location in [Some(&image.location), image.header.as_ref()]
        .into_iter()
        .flatten()
    {
        if let Some(path) = location.path_of_whole()
            && std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device())
        {
            claimed.push(Destination::look(path)?.claim()?);
        }
    }
    Ok(claimed)
}

/// The keyslots of the new key.
fn new_keyslots(container: &Container) -> Result<Vec<u32>, Error> {
    let found = container.reencryption()?;
    let mut slots = found.map_or_else(Vec::new, |found| {
        container.keyslots_of_digest(found.following_digest)
    });
    slots.sort_unstable();
    Ok(slots)
}

/// The size of the data that is reencrypted, on its storage, in bytes.
#[must_use]
pub fn data_size(found: &Reencryption, data: &dyn Backend) -> u64 {
    let rest = data.geometry().size.saturating_sub(found.previous.offset());
    found.fixed_size().unwrap_or(rest)
}

/// How far a reencryption is, of `size` bytes.
#[must_use]
pub fn converted(found: &Reencryption, size: u64) -> u64 {
    match found.progress {
        Progress::Clean { converted } => converted,
        Progress::Hot { start, .. } => start,
        Progress::Finished => size,
    }
}

/// The error of a reencryption that cannot be taken up.
pub(super) fn not_resumed(error: ReencryptError) -> Error {
    let advice = match error {
        ReencryptError::Unverified { journaled, .. } => Some(match journaled {
            true => Advice::JournaledBlocks,
            false => Advice::UnverifiedBlocks,
        }),
        ReencryptError::OnlyOffline => Some(Advice::FinishEncryption),
        _ => None,
    };
    let error = Error::from(error);
    match advice {
        Some(advice) => error.advise(advice),
        None => error,
    }
}

/// Waits, unless the interrupt is set.
fn wait_until(time: Instant, watch: &dyn Watch) {
    while !watch.interrupt().is_set() {
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
