//! Logs when the link to the server changes its state: once for each change, however many requests
//! notice it.

use std::mem::Discriminant;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::error::Problem;
use crate::backend::chain;

/// The state that was logged last; `None` while the server is connected.
#[derive(Default)]
pub(super) struct StateLog(Mutex<Option<State>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The server cannot be reached, and requests wait for it.
    Waiting,
    /// The server could not be reached until the timeout.
    Failed,
    /// The server can be reached and cannot be used.
    Refused(Discriminant<Problem>),
}

impl StateLog {
    fn change_to(&self, state: Option<State>) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *logged, state) != state
    }

    /// The server does not answer. Attempts go on until the timeout.
    pub(super) fn waiting(&self, server: &str, problem: &Problem, timeout: Duration) {
        if self.change_to(Some(State::Waiting)) {
            let (problem, seconds) = (chain(problem), timeout.as_secs_f32());
            tracing::warn!(
                target: "luksmith::state",
                "{server}: no connection ({problem}); trying again for {seconds} s"
            );
        }
    }

    /// The attempts have ended. The next one is made for the next request.
    pub(super) fn failed(&self, server: &str, problem: &Problem) {
        let transient = problem.is_transient();
        let state = if transient {
            State::Failed
        } else {
            State::Refused(std::mem::discriminant(problem))
        };
        if self.change_to(Some(state)) {
            let problem = chain(problem);
            let until = if transient {
                "the server is back"
            } else {
                "that is corrected"
            };
            tracing::warn!(
                target: "luksmith::state",
                "{server}: {problem}; requests fail until {until}"
            );
        }
    }

    /// A connection was made.
    pub(super) fn connected(&self, server: &str) {
        if self.change_to(None) {
            tracing::info!(target: "luksmith::state", "{server}: connected again");
        } else {
            tracing::info!(server, "connected again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_logged() {
        let log = StateLog::default();
        let other = State::Refused(std::mem::discriminant(&Problem::OtherDisk));
        assert!(!log.change_to(None));
        assert!(log.change_to(Some(State::Waiting)));
        assert!(!log.change_to(Some(State::Waiting)));
        assert!(log.change_to(Some(State::Failed)));
        assert!(log.change_to(Some(other)) && !log.change_to(Some(other)));
        let shrunk = Problem::Shrunk { was: 2, is: 1 };
        assert!(log.change_to(Some(State::Refused(std::mem::discriminant(&shrunk)))));
        assert!(log.change_to(None));
    }
}
