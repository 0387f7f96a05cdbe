//! SIGINT, SIGTERM and SIGHUP.
//!
//! The first signal asks the command to end in an orderly way. A second SIGINT, or any signal a
//! second or more after the first one, ends the program immediately. Signals that come together are
//! one request to stop: systemd sends SIGTERM and SIGHUP (`SendSIGHUP=yes`), `timeout` signals its
//! child and its group, a closing terminal signals all.
//!
//! Where the program waits inside a system call and nothing is half done, the first signal ends it.
//!
//! SIGXFSZ (a file would exceed its limit) does not end the program: the write fails with EFBIG.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use luksmith::Interrupt;
use luksmith::task::MadeFile;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};

use super::error::{CommandError, Exit, Kind};
use super::output;

/// The interrupt that long work checks, and the files that are not finished yet.
#[derive(Clone)]
pub(crate) struct Signals {
    interrupt: Interrupt,
    unfinished: Arc<Mutex<Vec<MadeFile>>>,
    at_first: Arc<Mutex<Vec<Act>>>,
    /// How many threads are in [`Signals::ending`].
    ending: Arc<Mutex<usize>>,
}

/// Those of the whole program.
static CAUGHT: OnceLock<Signals> = OnceLock::new();

/// As [`Signals::ending`], for code that asks the user a question.
pub(crate) fn ending<T>(work: impl FnOnce() -> T) -> Result<T, CommandError> {
    match CAUGHT.get() {
        Some(signals) => signals.ending(work),
        None => Ok(work()),
    }
}

/// A signal that comes within this time after the first one belongs to the same request.
const TOGETHER: Duration = Duration::from_secs(1);

/// What the first signal does, besides setting the interrupt.
type Act = Box<dyn Fn() + Send>;

impl Signals {
    /// Starts the thread that waits for signals.
    pub(crate) fn catch() -> Result<Self, CommandError> {
        let signals = Self {
            interrupt: Interrupt::new(),
            unfinished: Arc::default(),
            at_first: Arc::default(),
            ending: Arc::default(),
        };
        let failed = |error| CommandError::new(Kind::Storage, error).about("cannot catch signals");
        let mut caught =
            signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
        // With any handler the signal does not end the program.
        signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map_err(failed)?;
        let here = signals.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let mut first: Option<Instant> = None;
                let mut interrupted = false;
                for signal in caught.forever() {
                    let impatient = signal == SIGINT && interrupted;
                    interrupted |= signal == SIGINT;
                    match first {
                        None => {
                            first = Some(Instant::now());
                            here.interrupt.trigger();
                            here.acts().iter().for_each(|act| act());
                            if *here.ends() > 0 {
                                here.end_now("interrupted");
                            }
                        }
                        Some(first) if impatient || first.elapsed() >= TOGETHER => {
                            here.end_now("stopped at once")
                        }
                        Some(_) => {}
                    }
                }
            })
            .map_err(|error| {
                CommandError::new(Kind::Memory, error).about("cannot start a thread")
            })?;
        Ok(CAUGHT.get_or_init(|| signals).clone())
    }

    pub(crate) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Calls `act` at the first signal, or now if there was one: for code that waits without
    /// checking the interrupt.
    pub(crate) fn at_first(&self, act: impl Fn() + Send + 'static) {
        let mut acts = self.acts();
        if self.interrupt.is_set() {
            act();
        }
        acts.push(Box::new(act));
    }

    /// Does work that may wait inside a system call, where it cannot check the interrupt, and that
    /// leaves nothing half done. A first signal during this work ends the program.
    ///
    /// # Errors
    /// If there was a signal before.
    pub(crate) fn ending<T>(&self, work: impl FnOnce() -> T) -> Result<T, CommandError> {
        {
            let mut ends = self.ends();
            if self.interrupt.is_set() {
                return Err(luksmith::task::Error::interrupted().into());
            }
            *ends += 1;
        }
        let done = work();
        *self.ends() -= 1;
        Ok(done)
    }

    fn ends(&self) -> MutexGuard<'_, usize> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn acts(&self) -> MutexGuard<'_, Vec<Act>> {
        self.at_first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a new file that is useless until it is finished.
    pub(crate) fn begin(&self, file: &MadeFile) {
        self.unfinished().push(file.clone());
    }

    /// The file is finished, or was removed.
    pub(crate) fn end(&self, file: &MadeFile) {
        self.unfinished().retain(|unfinished| unfinished != file);
    }

    fn unfinished(&self) -> MutexGuard<'_, Vec<MadeFile>> {
        self.unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes unfinished files, and ends the program without waiting for anything else.
    fn end_now(&self, why: &str) -> ! {
        for file in self.unfinished().iter() {
            if let Err(error) = file.remove() {
                output::error(&format!(
                    "{why}; the unfinished {} could not be removed: {error}",
                    file.path().display()
                ));
            }
        }
        output::report(&CommandError::new(Kind::Interrupted, why));
        signal_hook::low_level::exit(i32::from(Exit::from(Kind::Interrupted).code()))
    }
}
