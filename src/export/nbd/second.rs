//! A connection's second thread: it carries out a long request while the next one is received or carried out by the
//! first.
//!
//! Unlike a thread of the pool it belongs to one client, and so may wait for it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::execute::Serving;
use super::replies::Replies;

type Work = Box<dyn FnOnce(&Serving, &mut Replies) -> io::Result<()> + Send>;

pub(super) struct Second {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    serving: Arc<Serving>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    work: Option<Work>,
    /// From when it is given work until the answer is sent.
    busy: bool,
    ended: bool,
}

impl Second {
    pub(super) fn new(serving: &Arc<Serving>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            serving: serving.clone(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let worker = shared.clone();
        let thread = std::thread::Builder::new()
            .name("nbd-second".to_owned())
            .spawn(move || worker.work())?;
        Ok(Self { shared, thread })
    }

    pub(super) fn is_free(&self) -> bool {
        !self.shared.state().busy
    }

    /// Has `work` done and its answer sent. Only who has found it free may ask, and only the first thread asks.
    pub(super) fn run(
        &self,
        work: impl FnOnce(&Serving, &mut Replies) -> io::Result<()> + Send + 'static,
    ) {
        let mut state = self.shared.state();
        state.busy = true;
        state.work = Some(Box::new(work));
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits until it has sent its answer.
    pub(super) fn wait(&self) {
        let busy = |state: &mut State| state.busy;
        let state = self.shared.changed.wait_while(self.shared.state(), busy);
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until all is done.
    pub(super) fn finish(self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_all();
        let _ = self.thread.join();
    }
}

impl Shared {
    // Nothing panics while it is held.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(work) = state.work.take() {
                drop(state);
                let turn = Turn(self);
                let mut answers = Replies::default();
                let done = work(&self.serving, &mut answers)
                    .and_then(|()| answers.send(&self.serving.channel));
                if let Err(error) = done {
                    tracing::debug!(%error, "the client takes no answers");
                    self.serving.channel.shutdown();
                }
                drop(turn);
                state = self.state();
            } else if state.ended {
                return;
            } else {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// While it works. A panic leaves a request without an answer, which ends the connection.
struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.serving.channel.shutdown();
        }
        self.0.state().busy = false;
        self.0.changed.notify_all();
    }
}
