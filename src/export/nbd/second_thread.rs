//! The second thread of a connection. It serves a long request while the first thread receives or
//! serves the next one.
//!
//! Unlike a thread of the pool it belongs to one client, so it can wait for that client.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::execute::Session;
use super::replies::Replies;

type Work = Box<dyn FnOnce(&Session, &mut Replies) -> io::Result<()> + Send>;

/// A handle to the thread, for the first thread.
pub(super) struct SecondThread {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    session: Arc<Session>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    work: Option<Work>,
    /// True from when work is given to it until the reply is sent.
    busy: bool,
    ended: bool,
}

impl SecondThread {
    /// Starts the thread.
    pub(super) fn new(session: &Arc<Session>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            session: session.clone(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let worker = shared.clone();
        let thread = std::thread::Builder::new()
            .name("nbd-second".to_owned())
            .spawn(move || worker.work())?;
        Ok(Self { shared, thread })
    }

    /// Whether [`submit`](Self::submit) can be called.
    pub(super) fn is_free(&self) -> bool {
        !self.shared.state().busy
    }

    /// Runs `work` and sends its reply. The caller has found the thread free; only the first thread
    /// of the connection calls this.
    pub(super) fn submit(
        &self,
        work: impl FnOnce(&Session, &mut Replies) -> io::Result<()> + Send + 'static,
    ) {
        let mut state = self.shared.state();
        state.busy = true;
        state.work = Some(Box::new(work));
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits until it has sent its reply.
    pub(super) fn wait(&self) {
        let busy = |state: &mut State| state.busy;
        let state = self.shared.changed.wait_while(self.shared.state(), busy);
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until it has sent its reply, and for it to end.
    pub(super) fn finish(self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_all();
        let _ = self.thread.join();
    }
}

impl Shared {
    // No code panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(work) = state.work.take() {
                drop(state);
                let busy = Busy(self);
                let mut replies = Replies::default();
                let done = work(&self.session, &mut replies)
                    .and_then(|()| replies.send(&self.session.channel));
                if let Err(error) = done {
                    tracing::debug!(%error, "the client does not receive its replies");
                    self.session.channel.shutdown();
                }
                drop(busy);
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

/// Exists while the thread works. A panic leaves a request without a reply, which ends the
/// connection.
struct Busy<'a>(&'a Shared);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.session.channel.shutdown();
        }
        self.0.state().busy = false;
        self.0.changed.notify_all();
    }
}
