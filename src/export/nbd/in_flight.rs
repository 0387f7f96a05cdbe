//! The requests of one connection that are in flight in the pool, and the thread that sends their
//! replies. No thread of the pool ever waits for a client.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::execute::Session;
use super::replies::Replies;
use super::shared::Shared;
use crate::export::budget::Budget;

/// The most requests of one connection in flight at once.
const MAX_REQUESTS: usize = 64;

/// The requests in flight of one connection.
pub(super) struct InFlight {
    shared: Arc<Requests>,
    sender: JoinHandle<()>,
}

struct Requests {
    session: Arc<Session>,
    server: Arc<Shared>,
    share: Budget,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The requests that have no reply yet.
    requests: usize,
    /// The replies that the sender has not taken yet.
    replies: Replies,
    /// The bytes of the budget that belong to `replies`.
    held: usize,
    /// Whether the sender is sending replies that it has taken.
    sending: bool,
    /// Whether the sender ends once there is nothing left to send.
    ended: bool,
}

impl InFlight {
    /// Starts the thread that sends the replies.
    pub(super) fn new(session: &Arc<Session>, server: &Arc<Shared>) -> io::Result<Self> {
        let shared = Arc::new(Requests {
            session: session.clone(),
            server: server.clone(),
            share: server.budget.share(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let requests = shared.clone();
        let sender = std::thread::Builder::new()
            .name("nbd-answers".to_owned())
            .spawn(move || requests.send_replies())?;
        Ok(Self { shared, sender })
    }

    /// Admits a request that holds this many bytes in memory, unless a limit is reached.
    pub(super) fn admit(&self, bytes: usize) -> Option<Slot> {
        let shared = &self.shared;
        let mut state = shared.state();
        if state.requests >= MAX_REQUESTS || !shared.share.try_take(bytes) {
            return None;
        }
        if !shared.server.budget.try_take(bytes) {
            shared.share.give_back(bytes);
            return None;
        }
        state.requests += 1;
        drop(state);
        Some(Slot {
            requests: shared.clone(),
            bytes,
            replied: false,
        })
    }

    /// Waits until no request is in flight and every reply has been sent.
    pub(super) fn wait(&self) {
        let unfinished =
            |state: &mut State| state.requests > 0 || state.sending || !state.replies.is_empty();
        let shared = &self.shared;
        let state = shared.changed.wait_while(shared.state(), unfinished);
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits as [`wait`](Self::wait) does, and for the sender to end.
    pub(super) fn finish(self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_all();
        let _ = self.sender.join();
    }
}

impl Requests {
    // No code panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, bytes: usize) {
        self.share.give_back(bytes);
        self.server.budget.give_back(bytes);
    }

    fn send_replies(&self) {
        let mut state = self.state();
        loop {
            if !state.replies.is_empty() {
                let mut replies = std::mem::take(&mut state.replies);
                let held = std::mem::take(&mut state.held);
                state.sending = true;
                drop(state);
                if let Err(error) = replies.send(&self.session.channel) {
                    tracing::debug!(%error, "the client does not receive its replies");
                    self.session.channel.shutdown();
                }
                self.give_back(held);
                state = self.state();
                state.sending = false;
                self.changed.notify_all();
            } else if state.ended && state.requests == 0 {
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

/// A request in flight. If it is dropped without a reply, the connection ends.
pub(super) struct Slot {
    requests: Arc<Requests>,
    bytes: usize,
    replied: bool,
}

impl Slot {
    /// Runs `work` in a thread of the pool, or in this thread if none is free.
    pub(super) fn submit(self, work: impl FnOnce(&Session, &mut Replies) + Send + 'static) {
        let server = self.requests.server.clone();
        let job = Box::new(move || {
            let mut slot = self;
            let mut replies = Replies::default();
            work(&slot.requests.session, &mut replies);
            slot.complete(replies);
        });
        if let Err(job) = server.pool.submit(job) {
            job();
        }
    }

    fn complete(&mut self, mut replies: Replies) {
        let mut state = self.requests.state();
        state.replies.append(&mut replies);
        // The sender gives the bytes back once the reply has been sent.
        state.held += std::mem::take(&mut self.bytes);
        drop(state);
        self.replied = true;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.replied {
            self.requests.session.channel.shutdown();
        }
        self.requests.give_back(self.bytes);
        self.requests.state().requests -= 1;
        self.requests.changed.notify_all();
    }
}
