//! Gives a volume another volume key or another cipher in place, or goes on with that.

use std::fs::File;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::hash::Hash;
use luksmith_formats::limits::Limits;
use luksmith_formats::luks2::{Progress, Reencryption, Resilience};

use super::cost::CostOptions;
use super::destination::Destination;
use super::open::Image;
use super::storage::Storage;
use super::{Advice, Error, Kind, Watch, Work, Working};
use crate::backend::Backend;
use crate::container::{BeginReencryption, Container, ReencryptionKeys, Version};
use crate::reencrypt::{
    self, DEFAULT_JOURNAL_ZONE, DEFAULT_ZONE, Reencrypt, ReencryptError, Resume,
};
use crate::secret::Passphrase;

/// The largest zone that can be asked for, in bytes. A zone is in memory as a whole.
const LARGEST_ZONE: u64 = 64 << 20;

/// The largest block of checksums, in bytes.
const LARGEST_BLOCK: u32 = 4096;

/// What a reencryption changes, and how. `None` keeps what the volume has, and of a reencryption
/// that is in progress also what it began with.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// The new cipher.
    pub cipher: Option<CipherSpec>,
    /// The size of the new volume key, in bytes.
    pub key_size: Option<usize>,
    /// The new encryption sector size, in bytes.
    pub sector_size: Option<u32>,
    /// The hash of the new digest and of the anti-forensic splitter.
    pub hash: Option<Hash>,
    /// The cost of the new keyslots.
    pub cost: CostOptions,
    /// How a zone survives an interruption.
    pub protection: Option<Protection>,
    /// The hash of checksums.
    pub checksum_hash: Option<Hash>,
    /// The largest zone, in bytes.
    pub zone: Option<u64>,
    /// The most bytes that are converted in a second.
    pub rate: Option<u64>,
    /// Only goes on with a reencryption that is in progress.
    pub only_resume: bool,
    /// Only prepares the header, and converts nothing.
    pub only_begin: bool,
    /// Removes keyslots that no given passphrase opens.
    pub drop_others: bool,
    /// Goes on although a block of an interrupted zone is neither old nor converted.
    pub unverified_blocks: bool,
}

/// How a zone survives an interruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protection {
    /// By checksums of its blocks, which the storage has to write atomically.
    Checksum,
    /// By a copy of its old ciphertext.
    Journal,
}

/// How a reencryption ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reencrypted {
    /// Whether everything is converted, and the old key is gone.
    pub finished: bool,
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
    /// The devices, open exclusively, so that the kernel neither mounts nor maps them.
    claimed: Vec<File>,
}

/// The encryption after the reencryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    cipher: CipherSpec,
    key_size: usize,
    sector_size: u32,
    /// That of the data before.
    old_sector_size: u32,
    size: u64,
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
        options.cost.check(&container)?;
        if options.zone.is_some_and(|zone| zone > LARGEST_ZONE) {
            let message = format!("zone-size: at most {} MiB", LARGEST_ZONE >> 20);
            return Err(Error::parameters(message));
        }
        let target = match &pending {
            Some(found) => pending_target(found, &options).map_err(about)?,
            None if options.only_resume => {
                let message = "no reencryption is in progress";
                return Err(about(Error::parameters(message)));
            }
            None => new_target(&container, &data, &options)?,
        };
        Ok(Self {
            container,
            data,
            options,
            pending,
            target,
            claimed,
        })
    }

    /// Whether a reencryption is in progress, which is gone on with.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether the sectors become larger. What the guest has stored in blocks that are smaller than
    /// a sector can no longer be used: a filesystem with such blocks cannot be mounted.
    #[must_use]
    pub fn enlarges_sectors(&self) -> bool {
        self.pending.is_none() && self.target.sector_size > self.target.old_sector_size
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
                converted,
                size: self.target.size,
                keyslots: new_keyslots(&self.container)?,
                dropped,
            });
        }
        let resume = Resume {
            zone: self.options.zone,
            unverified_blocks: self.options.unverified_blocks,
        };
        let resumed = Reencrypt::resume(self.container, self.data.backend.clone(), &keys, resume);
        let mut engine = resumed.map_err(|error| {
            let unverified = matches!(error, ReencryptError::Unverified { .. });
            Error::from(error).advise_if(unverified, Advice::UnverifiedBlocks)
        })?;
        let working = Working::begin(watch, Work::Reencrypt, Some(engine.size()));
        working.advance(engine.converted());
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
            if let Some(rate) = self.options.rate {
                let due = Duration::from_secs_f64((converted + done - first) as f64 / rate as f64);
                wait_until(began + due, watch);
            }
        }
        let size = engine.size();
        let container = engine.finish()?;
        working.finish();
        Ok(Reencrypted {
            finished: true,
            converted: size,
            size,
            keyslots: container
                .keyslots()
                .iter()
                .filter(|slot| slot.bound)
                .map(|slot| slot.slot)
                .collect(),
            dropped,
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
        let interrupt = watch.interrupt();
        let matched = self.container.match_keyslots(passphrases, interrupt)?;
        if !matched.others.is_empty() && !self.options.drop_others {
            let slots: Vec<_> = matched.others.iter().map(u32::to_string).collect();
            let slots = slots.join(", ");
            let message = format!(
                "none of the passphrases opens these keyslots, which would open nothing after the \
                 reencryption: {slots}"
            );
            return Err(Error::parameters(message).advise(Advice::DropKeyslots));
        }
        let Target {
            cipher,
            key_size,
            sector_size,
            ..
        } = self.target;
        reencrypt::check_cipher(cipher, sector_size, key_size)?;
        self.fill_holes()?;
        let hash = self.options.hash.unwrap_or(Hash::Sha256);
        let resilience = self.resilience()?;
        let zone = self.options.zone.unwrap_or(match resilience {
            Resilience::Journal => DEFAULT_JOURNAL_ZONE,
            _ => DEFAULT_ZONE,
        });
        let cost = &self.options.cost;
        let begin = BeginReencryption {
            cipher,
            key_size,
            sector_size,
            hash,
            kdf: cost.of_keyslot(hash, Version::Luks2, key_size, watch)?,
            digest_iterations: cost.of_digest(hash, watch)?,
            keep_key: false,
            area_size: reencrypt::area_size(&resilience, zone.min(self.target.size)),
            resilience,
            keyslots: matched
                .opened
                .iter()
                .filter_map(|(slot, index)| Some((*slot, passphrases.get(*index)?)))
                .collect(),
        };
        let begun = self
            .container
            .begin_reencryption(&matched.unlocked, &begin, interrupt);
        let keys = begun.map_err(|error| {
            let error = Error::from(error);
            let full = error.kind() == Kind::NoSpace;
            error.advise_if(full, Advice::CopyInstead)
        })?;
        Ok((keys, matched.others))
    }

    /// How zones are protected: by checksums only if the storage promises to write their blocks
    /// atomically, or if the caller says so.
    fn resilience(&self) -> Result<Resilience, Error> {
        let least = self.target.sector_size.max(self.target.old_sector_size);
        let promised = self.data.backend.atomic_unit().unwrap_or(0);
        let protection = self.options.protection.unwrap_or(match promised >= least {
            true => Protection::Checksum,
            false => Protection::Journal,
        });
        if protection == Protection::Journal {
            return match self.options.checksum_hash {
                Some(_) => Err(Error::parameters("resilience-hash goes with checksums")),
                None => Ok(Resilience::Journal),
            };
        }
        // Larger blocks need fewer checksums.
        let block = match promised {
            0 => LARGEST_BLOCK,
            promised => promised.min(LARGEST_BLOCK),
        };
        let block = block.max(least);
        let whole = self.target.size.is_multiple_of(block.into());
        Ok(Resilience::Checksum {
            hash: self.options.checksum_hash.unwrap_or(Hash::Sha256),
            sector_size: if whole { block } else { least },
        })
    }
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
    let rest = data.geometry().size.saturating_sub(found.previous.offset);
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

/// The encryption after the reencryption that is in progress. Options must not differ from it.
fn pending_target(found: &Reencryption, options: &Options) -> Result<Target, Error> {
    let following = &found.following;
    let weak = |error| Error::new(Kind::Unsupported, error);
    following.encryption.check_writable().map_err(weak)?;
    let kept = match &found.state.resilience {
        Resilience::Checksum { .. } => Some(Protection::Checksum),
        Resilience::Journal => Some(Protection::Journal),
        _ => None,
    };
    let differs = options
        .cipher
        .is_some_and(|cipher| cipher != following.encryption)
        || options
            .sector_size
            .is_some_and(|size| size != following.sector_size)
        || options
            .protection
            .is_some_and(|wanted| Some(wanted) != kept);
    if differs {
        let message = format!(
            "a reencryption to {} with sectors of {} bytes and resilience {} is in progress, and \
             has to be finished first",
            following.encryption,
            following.sector_size,
            found.state.resilience.name()
        );
        return Err(Error::parameters(message).advise(Advice::ReencryptAgain));
    }
    Ok(Target {
        cipher: following.encryption,
        key_size: 0,
        sector_size: following.sector_size,
        old_sector_size: found.previous.sector_size,
        size: found.fixed_size().unwrap_or(0),
    })
}

fn new_target(container: &Container, data: &Storage, options: &Options) -> Result<Target, Error> {
    let present = container.data_segment()?;
    let cipher = options.cipher.unwrap_or(present.cipher);
    cipher
        .check_writable()
        .map_err(|error| Error::new(Kind::Parameters, error).advise(Advice::UsualCipher))?;
    let present_key = container.volume_key_size().unwrap_or(64);
    let fits = |size: &usize| cipher.check_key_size(*size).is_ok();
    let largest = cipher.key_sizes().iter().copied().max().unwrap_or(64);
    let default = Some(present_key).filter(fits).unwrap_or(largest);
    let key_size = options.key_size.unwrap_or(default);
    if !fits(&key_size) {
        let message = format!("key-size: {cipher} has no keys of {} bits", key_size * 8);
        return Err(Error::parameters(message).advise(Advice::KeySizes(cipher)));
    }
    let sector_size = options.sector_size.unwrap_or(present.sector_size);
    let size = container.data_size(data.backend.geometry().size)?;
    let unit = u64::from(sector_size.max(present.sector_size));
    if size == 0
        || !size.is_multiple_of(unit)
        || present.left_out(data.backend.geometry().size) != 0
    {
        let message = format!("the volume has {size} bytes, which are not whole sectors of {unit}");
        return Err(Error::parameters(message).advise(Advice::WholeSectors));
    }
    Ok(Target {
        cipher,
        key_size,
        sector_size,
        old_sector_size: present.sector_size,
        size,
    })
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
