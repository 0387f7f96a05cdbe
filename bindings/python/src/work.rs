//! A task while it runs: progress, notes, signals, and exceptions of functions of the caller.
//!
//! The task runs in a thread of its own, and the calling thread waits without the GIL. It looks for
//! signals from time to time, so that Ctrl-C ends a key derivation.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use luksmith::Interrupt;
use luksmith::task::{Error, Note, Watch, Work};
use pyo3::prelude::*;

use crate::error::raised;

/// How often the calling thread looks for signals.
const LOOK: Duration = Duration::from_millis(50);

/// What a task reports to.
#[derive(Default)]
pub(crate) struct Watching {
    interrupt: Interrupt,
    progress: Option<Py<PyAny>>,
    /// The work that has begun and not ended, the innermost last.
    begun: Mutex<Vec<Begun>>,
    /// What a function of the caller, or a signal, has raised first.
    raised: Mutex<Option<PyErr>>,
}

/// Work that has begun.
struct Begun {
    work: Work,
    done: u64,
    total: Option<u64>,
}

impl Watching {
    /// Reports to the function `progress`.
    pub(crate) fn new(progress: Option<Py<PyAny>>) -> Arc<Self> {
        Arc::new(Self {
            progress,
            ..Self::default()
        })
    }

    /// Runs a task, and returns what it returns, or raises what has ended it.
    pub(crate) fn run<T: Send>(
        self: &Arc<Self>,
        py: Python<'_>,
        task: impl FnOnce(&Self) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let outcome = py.detach(|| {
            std::thread::scope(|scope| {
                let (done, ended) = mpsc::sync_channel::<()>(0);
                let thread = scope.spawn(move || {
                    let outcome = task(self);
                    drop(done);
                    outcome
                });
                while let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK) {
                    Python::attach(|py| self.keep(py, py.check_signals()));
                }
                thread.join()
            })
        });
        if let Some(raised) = lock(&self.raised).take() {
            return Err(raised);
        }
        match outcome {
            Ok(outcome) => outcome.map_err(|error| raised(py, &error)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// What a function of the caller has returned. What it has raised instead ends the task.
    pub(crate) fn keep<T>(&self, _: Python<'_>, outcome: PyResult<T>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                lock(&self.raised).get_or_insert(error);
                self.interrupt.trigger();
                None
            }
        }
    }

    fn tell(&self, work: impl Display, done: u64, total: Option<u64>) {
        if let Some(progress) = &self.progress {
            Python::attach(|py| {
                let told = progress.call1(py, (work.to_string(), done, total));
                self.keep(py, told);
            });
        }
    }
}

impl Watch for Watching {
    fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    fn begins(&self, work: Work, total: Option<u64>) {
        let done = 0;
        lock(&self.begun).push(Begun { work, done, total });
        self.tell(work, done, total);
    }

    fn advances(&self, by: u64) {
        let now = lock(&self.begun).last_mut().map(|begun| {
            begun.done += by;
            (begun.work, begun.done, begun.total)
        });
        if let Some((work, done, total)) = now {
            self.tell(work, done, total);
        }
    }

    fn ends(&self, _: Work, _: bool) {
        lock(&self.begun).pop();
    }

    fn notes(&self, note: Note<'_>) {
        Python::attach(|py| {
            let logger = py
                .import("logging")
                .and_then(|logging| logging.call_method1("getLogger", ("luksmith",)));
            let logged = logger.and_then(|it| it.call_method1("warning", ("%s", note.to_string())));
            self.keep(py, logged);
        });
    }
}

/// No function of the caller runs while such a lock is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
