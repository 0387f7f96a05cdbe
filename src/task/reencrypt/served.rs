//! The reencryption of a volume that is served, in a thread of its own.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::reencrypt::{Idle, Online, ReencryptError};
use crate::task::open::Image;
use crate::task::storage::Storage;
use crate::task::{Error, chain};

/// How far the reencryption of a served volume is, and what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// What it does.
    pub state: State,
    /// The bytes that are converted.
    pub converted: u64,
    /// The size of the volume in bytes.
    pub size: u64,
    /// The size of a zone at present, in bytes.
    pub zone: u64,
    /// The most bytes that are converted in a second.
    pub rate: Option<u64>,
    /// The longest time for which writes to a zone have had to wait.
    pub longest_pause: Duration,
    /// The keyslots that open the volume after the end.
    pub keyslots: Vec<u32>,
}

/// What the reencryption of a served volume does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It is being prepared.
    Starts,
    /// It converts zones.
    Running,
    /// It waits until it is resumed.
    Paused,
    /// Everything is converted, and the old key is gone.
    Finished,
    /// It has failed. It can be taken up when the volume is served again.
    Failed(String),
}

impl State {
    /// A short name, for programs that read it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starts => "starts",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Failed(_) => "failed",
        }
    }
}

/// A reencryption that goes on beside clients. Dropping it stops it after the present zone, and
/// waits for that.
#[derive(Debug)]
pub struct Served {
    shared: Arc<Shared>,
    /// Returns what has finished.
    thread: Option<JoinHandle<Option<Online>>>,
}

/// An export whose volume is reencrypted beside its clients, or can be. It does not go on yet.
#[non_exhaustive]
pub struct Reencryptable {
    /// The name of the export.
    pub name: String,
    /// The volume.
    pub image: Image,
    /// How far it is.
    pub stage: Stage,
    #[cfg_attr(
        not(feature = "nbd"),
        expect(dead_code, reason = "a control socket begins a reencryption")
    )]
    pub(super) data: Storage,
}

/// How far the reencryption of a served volume is.
#[derive(Debug)]
pub enum Stage {
    /// It has not begun.
    Idle(Box<Idle>),
    /// It was begun before the volume was served.
    Pending(Box<Online>),
}

impl Reencryptable {
    pub(in crate::task) fn new(name: &str, image: Image, stage: Stage, data: Storage) -> Self {
        let name = name.to_owned();
        Self {
            name,
            image,
            stage,
            data,
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    status: Status,
    stop: bool,
    /// When the next zone may begin, because of the rate.
    due: Instant,
}

impl Served {
    /// Starts the thread. `ended` is called with the last status, if everything is converted or if
    /// it fails.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn start(
        mut online: Online,
        paused: bool,
        rate: Option<u64>,
        ended: impl FnOnce(&Status) + Send + 'static,
    ) -> Result<Self, Error> {
        let status = Status {
            state: match paused {
                true => State::Paused,
                false => State::Running,
            },
            converted: online.converted(),
            size: online.size(),
            zone: online.zone(),
            rate,
            longest_pause: Duration::ZERO,
            keyslots: online.keyslots(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(Inner {
                status,
                stop: false,
                due: Instant::now(),
            }),
            changed: Condvar::new(),
        });
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new().name("reencrypt".to_owned());
        let thread = thread.spawn(move || {
            let outcome = run(&mut online, &of_thread);
            let last = {
                let mut inner = of_thread.inner();
                match outcome {
                    Ok(true) => inner.status.state = State::Finished,
                    Ok(false) => return None,
                    Err(error) => inner.status.state = State::Failed(chain(&error)),
                }
                inner.status.clone()
            };
            ended(&last);
            (last.state == State::Finished).then_some(online)
        });
        Ok(Self {
            shared,
            thread: Some(thread.map_err(Error::thread)?),
        })
    }

    /// How far it is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.inner().status.clone()
    }

    /// Stops it after the present zone, waits for that, and returns what has finished, if it has.
    #[must_use]
    pub fn into_finished(mut self) -> Option<Online> {
        self.stop()
    }

    fn stop(&mut self) -> Option<Online> {
        self.shared.change(|inner| inner.stop = true);
        // What went wrong in the thread was reported by it.
        self.thread.take()?.join().ok()?
    }

    /// Stops it after the present zone, until it is resumed.
    pub fn pause(&self) {
        self.shared.change(|inner| {
            if inner.status.state == State::Running {
                inner.status.state = State::Paused;
            }
        });
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.shared.change(|inner| {
            if inner.status.state == State::Paused {
                inner.status.state = State::Running;
            }
        });
    }

    /// Sets the most bytes that are converted in a second.
    pub fn set_rate(&self, rate: Option<u64>) {
        self.shared.change(|inner| {
            inner.status.rate = rate;
            inner.due = Instant::now();
        });
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner());
        self.changed.notify_all();
    }

    /// Waits until the thread has to do something. If it is paused, it has to rest once.
    fn turn(&self, rests: bool) -> Turn {
        let mut inner = self.inner();
        loop {
            let left = inner.due.saturating_duration_since(Instant::now());
            let paused = inner.status.state == State::Paused;
            match paused {
                _ if inner.stop => return Turn::Stop,
                true if !rests => return Turn::Rest,
                false if left.is_zero() => return Turn::Zone,
                true => {
                    let waited = self.changed.wait(inner);
                    inner = waited.unwrap_or_else(PoisonError::into_inner);
                }
                false => {
                    let waited = self.changed.wait_timeout(inner, left);
                    inner = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// Records a zone of `done` bytes, whose conversion began at this time.
    fn report(&self, online: &Online, done: u64, began: Instant) {
        let mut inner = self.inner();
        inner.status.converted = online.converted();
        inner.status.zone = online.zone();
        inner.status.longest_pause = online.longest_pause();
        if let Some(rate) = inner.status.rate {
            let time = Duration::from_secs_f64(done as f64 / rate.max(1) as f64);
            inner.due = began + time;
        }
    }
}

/// What the thread does next.
enum Turn {
    Zone,
    Rest,
    Stop,
}

/// Converts zones until everything is converted, which it returns, or until it has to stop.
fn run(online: &mut Online, shared: &Shared) -> Result<bool, ReencryptError> {
    let mut rests = false;
    loop {
        match shared.turn(rests) {
            Turn::Stop if online.converted() == online.size() => {}
            Turn::Stop => {
                online.rest()?;
                return Ok(false);
            }
            Turn::Rest => {
                online.rest()?;
                rests = true;
                continue;
            }
            Turn::Zone => rests = false,
        }
        let began = Instant::now();
        let done = online.step()?;
        shared.report(online, done, began);
        if done == 0 {
            online.finish()?;
            return Ok(true);
        }
    }
}
