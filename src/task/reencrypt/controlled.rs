//! A volume of a server that is reencrypted beside its clients, or can be.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::options::Options;
use super::served::{Reencryptable, Served, Stage, State, Status};
use super::target::{Access, Begun, Zones, new_target, pending_target};
use super::{begin, claim};
use crate::container::ReencryptionKeys;
use crate::reencrypt::{Idle, Online, Resume};
use crate::secret::Passphrase;
use crate::task::open::Image;
use crate::task::storage::{Snapshots, Storage};
use crate::task::{Error, Kind, Watch, chain, size};
use crate::volume::Volume;

/// An export whose volume is reencrypted, or can be.
pub(super) struct Controlled {
    pub(super) name: String,
    pub(super) image: Image,
    data: Storage,
    volume: Arc<Volume>,
    now: Mutex<Now>,
    /// Told when a reencryption begins and ends.
    tell: fn(String),
    /// The devices, open exclusively, so that the kernel neither mounts nor maps them.
    claimed: Mutex<Vec<File>>,
}

/// What a volume does.
enum Now {
    Idle(Box<Idle>),
    /// A reencryption is being prepared.
    Starts,
    Reencrypted(Served, Box<Begun>),
    /// It began, and could not go on.
    Failed(String),
}

/// What is to be started.
pub(super) struct Start {
    pub(super) options: Options,
    /// Whether the sectors may become larger.
    pub(super) larger_sectors: bool,
}

impl Controlled {
    /// Lets a reencryption that is in progress go on, unless it is `paused`.
    pub(super) fn new(of: Reencryptable, paused: bool, tell: fn(String)) -> Result<Self, Error> {
        let Reencryptable {
            name,
            image,
            stage,
            data,
        } = of;
        let location = &image.location;
        let (volume, now, claimed) = match stage {
            Stage::Idle(idle) => (idle.volume().clone(), Now::Idle(idle), Vec::new()),
            Stage::Pending(online) => {
                let claimed = claim(&image)?;
                let (done, whole) = (online.converted(), online.size());
                let (done, whole) = (size::human(done), size::human(whole));
                let goes_on = if paused { "does not go on" } else { "goes on" };
                tell(format!(
                    "the reencryption of {location} {goes_on}: {done} of {whole} are converted"
                ));
                let volume = online.volume().clone();
                (volume, serve(*online, &image, paused, None, tell)?, claimed)
            }
        };
        Ok(Self {
            name,
            image,
            data,
            volume,
            now: Mutex::new(now),
            tell,
            claimed: Mutex::new(claimed),
        })
    }

    /// How far it is. `None` if no reencryption has begun.
    pub(super) fn status(&self) -> Option<Status> {
        let state = match &*self.now() {
            Now::Reencrypted(served, _) => return Some(served.status()),
            Now::Idle(_) => return None,
            Now::Starts => State::Starts,
            Now::Failed(why) => State::Failed(why.clone()),
        };
        Some(Status {
            state,
            converted: 0,
            size: self.volume.size(),
            zone: 0,
            rate: None,
            longest_pause: Duration::ZERO,
            keyslots: Vec::new(),
        })
    }

    /// The volume, for its sizes.
    pub(super) fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The snapshots of its storage.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if the storage has none.
    pub(super) fn snapshots(&self) -> Result<&dyn Snapshots, Error> {
        let message = "only a volume in an object store has snapshots here";
        let snapshots = self.data.snapshots.as_deref();
        snapshots.ok_or_else(|| Error::new(Kind::Unsupported, message))
    }

    /// Carries out something on a reencryption that has begun.
    ///
    /// # Errors
    /// [`Kind::Parameters`] if none has.
    pub(super) fn on_served(&self, what: impl FnOnce(&Served)) -> Result<(), Error> {
        match &*self.now() {
            Now::Reencrypted(served, _) => what(served),
            _ => return Err(Error::parameters("no reencryption is in progress")),
        }
        Ok(())
    }

    /// Begins a reencryption, durably, and lets it go on. One that is in progress goes on if the
    /// options agree with it. Returns the keyslots without a successor.
    ///
    /// # Errors
    /// Those of [`Plan::look`](super::Plan::look) and [`Plan::run`](super::Plan::run).
    pub(super) fn start(
        &self,
        start: &Start,
        passphrases: &[Passphrase],
        watch: &dyn Watch,
    ) -> Result<Vec<u32>, Error> {
        let about = |error: Error| error.about(&self.image.location);
        let options = &start.options;
        let mut idle = {
            let mut now = self.now();
            match std::mem::replace(&mut *now, Now::Starts) {
                Now::Idle(idle) => idle,
                Now::Starts => {
                    let message = "a reencryption is being started";
                    return Err(about(Error::new(Kind::Busy, message)));
                }
                Now::Failed(why) => {
                    *now = Now::Failed(why.clone());
                    return Err(about(Error::new(Kind::Storage, why)));
                }
                Now::Reencrypted(served, begun) => {
                    let status = served.status();
                    if let State::Failed(why) = status.state {
                        *now = Now::Reencrypted(served, begun);
                        return Err(about(Error::new(Kind::Storage, why)));
                    }
                    if status.state != State::Finished {
                        let agrees = pending_target(&begun, options).map(drop);
                        if agrees.is_ok() {
                            if options.rate.is_some() {
                                served.set_rate(options.rate);
                            }
                            served.resume();
                        }
                        *now = Now::Reencrypted(served, begun);
                        return agrees.map(|()| Vec::new()).map_err(about);
                    }
                    let ended = served.into_finished();
                    match ended.and_then(|online| online.into_idle().ok()) {
                        Some(idle) => Box::new(idle),
                        None => {
                            let why = "its thread has failed".to_owned();
                            *now = Now::Failed(why.clone());
                            return Err(about(Error::new(Kind::Memory, why)));
                        }
                    }
                }
            }
        };
        let (keys, dropped) = match self.begin(&mut idle, start, passphrases, watch) {
            Ok(begun) => begun,
            Err(error) => {
                *self.now() = Now::Idle(idle);
                return Err(about(error));
            }
        };
        let resume = Resume {
            zone: options.zone,
            unverified_blocks: false,
        };
        let whole = size::human(idle.volume().size());
        let location = &self.image.location;
        let online = Online::of_begun(*idle, &keys, resume).map_err(Error::from);
        let now = online.and_then(|online| {
            (self.tell)(format!(
                "the reencryption of {location} has begun: {whole} are to be converted"
            ));
            serve(online, &self.image, false, options.rate, self.tell)
        });
        match now {
            Ok(now) => {
                *self.now() = now;
                Ok(dropped)
            }
            Err(error) => {
                *self.now() = Now::Failed(chain(&error));
                Err(about(error))
            }
        }
    }

    /// Begins a reencryption durably, while clients use the volume.
    fn begin(
        &self,
        idle: &mut Idle,
        start: &Start,
        passphrases: &[Passphrase],
        watch: &dyn Watch,
    ) -> Result<(ReencryptionKeys, Vec<u32>), Error> {
        let (container, options) = (idle.container(), &start.options);
        options.check(container)?;
        if options.only_resume {
            return Err(Error::parameters("no reencryption is in progress"));
        }
        let target = new_target(container, &self.data, options)?;
        if target.size != idle.volume().size() {
            let message = "its size has changed since the server has opened it";
            return Err(Error::new(Kind::Busy, message));
        }
        if target.enlarges_sectors() && !start.larger_sectors {
            return Err(Error::parameters("its sectors would become larger"));
        }
        let unit = idle.volume().unit();
        let access = Access::WithClients { unit };
        let zones = Zones::of(None, &target, &self.data, options, access)?;
        let claimed = claim(&self.image)?;
        let matched = begin::matched(container, &target, options, passphrases, watch)?;
        idle.keep_space(true);
        let begun = self.data.fill_holes().and_then(|()| {
            let keyslots = (&matched, passphrases);
            let what = (&target, &zones);
            let container = idle.container();
            let prepared = begin::prepare(container, what, options, keyslots, true, watch)?;
            Ok(idle.begin(prepared)?)
        });
        match begun {
            Ok(keys) => {
                *self.claimed.lock().unwrap_or_else(PoisonError::into_inner) = claimed;
                Ok((keys, matched.others))
            }
            Err(error) => {
                idle.keep_space(false);
                Err(error)
            }
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a reencryption go on in a thread, and tells its end.
fn serve(
    online: Online,
    image: &Image,
    paused: bool,
    rate: Option<u64>,
    tell: fn(String),
) -> Result<Now, Error> {
    let of = image.location.clone();
    let begun = Begun::new(online.container(), online.description().clone());
    let served = Served::start(online, paused, rate, move |status| {
        tell(match &status.state {
            State::Failed(why) => format!(
                "the reencryption of {of} stopped: {why}; it goes on when the volume is served \
                 again"
            ),
            _ => format!("the reencryption of {of} is finished: make a new backup of its header"),
        });
    })?;
    Ok(Now::Reencrypted(served, Box::new(begun)))
}
