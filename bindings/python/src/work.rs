//! A task while it runs: progress, notes, signals, and exceptions of functions of the caller.
//!
//! The task runs in a thread of its own, and the calling thread waits without the GIL. It looks for
//! signals from time to time, so that Ctrl-C ends a key derivation. It also calls the function of
//! the caller for progress and the logger: the thread of the task may hold locks of the volume
//! then, which such a function may want too. So that thread only queues what it reports.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use luksmith::Interrupt;
use luksmith::task::{Error, Note, Watch, Work};
use pyo3::prelude::*;

use crate::error::{raised, with_note};

/// How often the calling thread looks for signals.
const LOOK: Duration = Duration::from_millis(50);

/// What a task reports to.
#[derive(Default)]
pub(crate) struct Watching {
    interrupt: Interrupt,
    progress: Option<Py<PyAny>>,
    /// The work that has begun and not ended, the innermost last.
    begun: Mutex<Vec<Begun>>,
    /// Whether the task waits until what it reports was told.
    waits: bool,
    state: Mutex<State>,
    changed: Condvar,
    /// What a function of the caller, or a signal, has raised first.
    raised: Mutex<Option<PyErr>>,
}

/// Work that has begun.
#[derive(Clone, Copy)]
struct Begun {
    work: Work,
    done: u64,
    total: Option<u64>,
}

/// What the task and the calling thread tell each other.
#[derive(Default)]
struct State {
    /// What is told to Python, the oldest first. The first is removed when it was told.
    told: VecDeque<Told>,
    has_ended: bool,
}

/// What a task has reported.
#[derive(Clone)]
enum Told {
    Progress(Begun),
    Note(String),
}

impl Watching {
    /// Reports to the function `progress`, which may use a volume that the task has locked.
    pub(crate) fn new(progress: Option<Py<PyAny>>) -> Arc<Self> {
        Arc::new(Self {
            progress,
            ..Self::default()
        })
    }

    /// Reports to the function `progress`, and waits until it returns: the task has locked nothing
    /// that Python can reach. So what the function raises ends the task where it is.
    pub(crate) fn waiting(progress: Option<Py<PyAny>>) -> Arc<Self> {
        Arc::new(Self {
            progress,
            waits: true,
            ..Self::default()
        })
    }

    /// Runs a task, and returns what it returns, or raises what has ended it. What was raised too
    /// late to end it has a note that the task has succeeded.
    pub(crate) fn run<T: Send>(
        self: &Arc<Self>,
        py: Python<'_>,
        task: impl FnOnce(&Self) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        lock(&self.state).has_ended = false;
        let outcome = py.detach(|| {
            std::thread::scope(|scope| {
                let thread = std::thread::Builder::new().spawn_scoped(scope, move || {
                    let _ended = Ended(self);
                    task(self)
                });
                let thread = match thread {
                    Ok(thread) => thread,
                    Err(error) => return Ok(Err(Error::thread(error))),
                };
                while !self.wait() {
                    Python::attach(|py| {
                        self.deliver(py);
                        self.keep(py, py.check_signals())
                    });
                }
                thread.join()
            })
        });
        self.deliver(py);
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let first = lock(&self.raised).take();
        match (first, outcome) {
            (None, outcome) => outcome.map_err(|error| raised(py, &error)),
            (Some(error), Ok(_)) => {
                let succeeded = "luksmith had succeeded before this was raised";
                Err(with_note(py, error, succeeded))
            }
            (Some(error), Err(_)) => Err(error),
        }
    }

    /// Waits for something to tell, for a short time, or for the end of the task, which it returns.
    fn wait(&self) -> bool {
        let state = lock(&self.state);
        let nothing = |state: &mut State| state.told.is_empty() && !state.has_ended;
        let waited = self.changed.wait_timeout_while(state, LOOK, nothing);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.has_ended
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

    /// Tells Python what the task has reported, until something is raised.
    fn deliver(&self, py: Python<'_>) {
        loop {
            let Some(told) = lock(&self.state).told.front().cloned() else {
                return;
            };
            let outcome = self.tell(py, told);
            let is_told = self.keep(py, outcome).is_some();
            let mut state = lock(&self.state);
            match is_told {
                true => drop(state.told.pop_front()),
                false => state.told.clear(),
            }
            self.changed.notify_all();
        }
    }

    fn tell(&self, py: Python<'_>, told: Told) -> PyResult<()> {
        match (told, &self.progress) {
            (Told::Progress(Begun { work, done, total }), Some(progress)) => {
                progress.call1(py, (work.to_string(), done, total))?;
            }
            (Told::Progress(_), None) => {}
            (Told::Note(text), _) => {
                let logging = py.import("logging")?;
                let logger = logging.call_method1("getLogger", ("luksmith",))?;
                logger.call_method1("warning", ("%s", text))?;
            }
        }
        Ok(())
    }

    fn report(&self, told: Told) {
        let mut state = lock(&self.state);
        if lock(&self.raised).is_some() {
            return;
        }
        state.told.push_back(told);
        self.changed.notify_all();
        if self.waits {
            let waiting = |state: &mut State| !state.told.is_empty();
            drop(self.changed.wait_while(state, waiting));
        }
    }

    fn report_progress(&self, begun: Begun) {
        if self.progress.is_some() {
            self.report(Told::Progress(begun));
        }
    }
}

/// Says at its end that the task has ended, also if it has panicked.
struct Ended<'a>(&'a Watching);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).has_ended = true;
        self.0.changed.notify_all();
    }
}

impl Watch for Watching {
    fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    fn begins(&self, work: Work, total: Option<u64>) {
        let done = 0;
        let begun = Begun { work, done, total };
        lock(&self.begun).push(begun);
        self.report_progress(begun);
    }

    fn advances(&self, by: u64) {
        let now = lock(&self.begun).last_mut().map(|begun| {
            begun.done += by;
            *begun
        });
        if let Some(begun) = now {
            self.report_progress(begun);
        }
    }

    fn ends(&self, _: Work, _: bool) {
        lock(&self.begun).pop();
    }

    fn notes(&self, note: Note<'_>) {
        self.report(Told::Note(note.to_string()));
    }
}

/// Drops a value while other threads of Python run: that may wait for a thread or for storage.
pub(crate) fn drop_detached<T: Send>(value: Option<T>) {
    let Some(value) = value else { return };
    let mut value = Some(value);
    // Without an interpreter, which has ended then, no thread of Python waits.
    Python::try_attach(|py| py.detach(|| drop(value.take())));
    drop(value);
}

/// No function of the caller runs while such a lock is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
