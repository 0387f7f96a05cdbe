//! SIGINT, SIGTERM and SIGHUP: the first asks the work to stop, the second stops the program at once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use luksmith::Interrupt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::error::{CommandError, Exit, Kind};
use super::output;

/// The flag that long work looks at, and the files that are not finished yet.
#[derive(Clone)]
pub(crate) struct Signals {
    interrupt: Interrupt,
    unfinished: Arc<Mutex<Vec<PathBuf>>>,
    at_first: Arc<Mutex<Vec<Act>>>,
}

/// What is done at the first signal beside setting the flag.
type Act = Box<dyn Fn() + Send>;

impl Signals {
    /// Starts the thread that waits for signals.
    pub(crate) fn catch() -> Result<Self, CommandError> {
        let signals = Self {
            interrupt: Interrupt::new(),
            unfinished: Arc::default(),
            at_first: Arc::default(),
        };
        let mut caught =
            signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|error| {
                CommandError::new(Kind::Storage, error).about("cannot catch signals")
            })?;
        let here = signals.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for _ in caught.forever() {
                    if here.interrupt.is_set() {
                        here.stop_now();
                    }
                    here.interrupt.trigger();
                    here.acts().iter().for_each(|act| act());
                }
            })
            .map_err(|error| {
                CommandError::new(Kind::Memory, error).about("cannot start a thread")
            })?;
        Ok(signals)
    }

    pub(crate) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Has something done at the first signal, also if that was already: for who waits without looking at the flag.
    pub(crate) fn at_first(&self, act: impl Fn() + Send + 'static) {
        let mut acts = self.acts();
        if self.interrupt.is_set() {
            act();
        }
        acts.push(Box::new(act));
    }

    fn acts(&self) -> MutexGuard<'_, Vec<Act>> {
        self.at_first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error once somebody asked to stop.
    pub(crate) fn check(&self) -> Result<(), CommandError> {
        if self.interrupt.is_set() {
            Err(interrupted())
        } else {
            Ok(())
        }
    }

    /// A new file that is worth nothing before it is finished.
    pub(crate) fn begin(&self, path: &Path) {
        self.unfinished().push(path.to_owned());
    }

    /// It is finished, or gone.
    pub(crate) fn end(&self, path: &Path) {
        self.unfinished().retain(|unfinished| unfinished != path);
    }

    fn unfinished(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The second signal: removes unfinished files and does not wait for anything else.
    fn stop_now(&self) -> ! {
        for path in self.unfinished().iter() {
            if let Err(error) = std::fs::remove_file(path) {
                output::error(&format!(
                    "stopped at once; the unfinished {} is left: {error}",
                    path.display()
                ));
            }
        }
        output::error("stopped at once");
        signal_hook::low_level::exit(i32::from(Exit::from(Kind::Interrupted).code()))
    }
}

/// Stopped by the user, with nothing left half done.
pub(crate) fn interrupted() -> CommandError {
    CommandError::new(Kind::Interrupted, "interrupted")
}
