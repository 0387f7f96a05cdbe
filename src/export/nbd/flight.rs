//! Requests of one connection that threads of the pool do, and the thread that sends their answers: no thread of the
//! pool waits for a client.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::Shared;
use super::execute::Serving;
use super::replies::Replies;
use crate::export::budget::Budget;

/// The most requests of one connection at once.
const MOST: usize = 64;

pub(super) struct Flight {
    under_way: Arc<UnderWay>,
    writer: JoinHandle<()>,
}

struct UnderWay {
    serving: Arc<Serving>,
    server: Arc<Shared>,
    share: Budget,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: usize,
    done: Replies,
    /// How many bytes `done` holds of the budget.
    held: usize,
    /// Whether answers are being sent that are in `done` no more.
    sending: bool,
    ended: bool,
}

impl Flight {
    pub(super) fn new(serving: &Arc<Serving>, server: &Arc<Shared>) -> io::Result<Self> {
        let under_way = Arc::new(UnderWay {
            serving: serving.clone(),
            server: server.clone(),
            share: server.budget.share(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let sender = under_way.clone();
        let writer = std::thread::Builder::new()
            .name("nbd-answers".to_owned())
            .spawn(move || sender.send_answers())?;
        Ok(Self { under_way, writer })
    }

    /// A place for a request with so many bytes, if there is one.
    pub(super) fn place(&self, bytes: usize) -> Option<Place> {
        let shared = &self.under_way;
        let mut state = shared.state();
        if state.requests >= MOST || !shared.share.try_take(bytes) {
            return None;
        }
        if !shared.server.budget.try_take(bytes) {
            shared.share.give_back(bytes);
            return None;
        }
        state.requests += 1;
        drop(state);
        Some(Place {
            under_way: shared.clone(),
            bytes,
            answered: false,
        })
    }

    /// Waits until nothing is under way and no answer is left to be sent.
    pub(super) fn wait(&self) {
        let unfinished =
            |state: &mut State| state.requests > 0 || state.sending || !state.done.is_empty();
        let shared = &self.under_way;
        let state = shared.changed.wait_while(shared.state(), unfinished);
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until all is answered.
    pub(super) fn finish(self) {
        self.under_way.state().ended = true;
        self.under_way.changed.notify_all();
        let _ = self.writer.join();
    }
}

impl UnderWay {
    // Nothing panics while it is held.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, bytes: usize) {
        self.share.give_back(bytes);
        self.server.budget.give_back(bytes);
    }

    fn send_answers(&self) {
        let mut state = self.state();
        loop {
            if !state.done.is_empty() {
                let mut answers = std::mem::take(&mut state.done);
                let held = std::mem::take(&mut state.held);
                state.sending = true;
                drop(state);
                if let Err(error) = answers.send(&self.serving.channel) {
                    tracing::debug!(%error, "the client takes no answers");
                    self.serving.channel.shutdown();
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

/// A request under way. Whoever drops it without an answer ends the connection.
pub(super) struct Place {
    under_way: Arc<UnderWay>,
    bytes: usize,
    answered: bool,
}

impl Place {
    /// Has `work` done by a thread of the pool, or here where none is free.
    pub(super) fn run(self, work: impl FnOnce(&Serving, &mut Replies) + Send + 'static) {
        let server = self.under_way.server.clone();
        let job = Box::new(move || {
            let mut place = self;
            let mut answers = Replies::default();
            work(&place.under_way.serving, &mut answers);
            place.answer(answers);
        });
        if let Err(job) = server.pool.submit(job) {
            job();
        }
    }

    fn answer(&mut self, mut answers: Replies) {
        let mut state = self.under_way.state();
        state.done.append(&mut answers);
        // They are given back when the answer has been sent.
        state.held += std::mem::take(&mut self.bytes);
        drop(state);
        self.answered = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.answered {
            self.under_way.serving.channel.shutdown();
        }
        self.under_way.give_back(self.bytes);
        self.under_way.state().requests -= 1;
        self.under_way.changed.notify_all();
    }
}
