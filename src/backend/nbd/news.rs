//! What is said of the way to the server: each change of its state once, however many requests meet it.

use std::mem::Discriminant;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::error::Problem;
use crate::backend::chain;

/// What was said last; nothing while all is well.
#[derive(Default)]
pub(super) struct News(Mutex<Option<State>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is gone, and waited for.
    Waiting,
    /// It was waited for long enough.
    GivenUp,
    /// It is there, and cannot be used.
    Refused(Discriminant<Problem>),
}

impl News {
    fn turn_to(&self, state: Option<State>) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *said, state) != state
    }

    /// It does not answer, and will be asked again for so long.
    pub(super) fn waiting(&self, server: &str, problem: &Problem, patience: Duration) {
        if self.turn_to(Some(State::Waiting)) {
            let (problem, seconds) = (chain(problem), patience.as_secs_f32());
            tracing::warn!(
                target: "luksmith::state",
                "{server}: no connection ({problem}); it is tried again for {seconds} s"
            );
        }
    }

    /// It is not asked again before somebody needs it.
    pub(super) fn given_up(&self, server: &str, problem: &Problem) {
        let passes = problem.passes();
        let state = if passes {
            State::GivenUp
        } else {
            State::Refused(std::mem::discriminant(problem))
        };
        if self.turn_to(Some(state)) {
            let problem = chain(problem);
            let until = if passes {
                "it is back"
            } else {
                "that is mended"
            };
            tracing::warn!(
                target: "luksmith::state",
                "{server}: {problem}; what needs it fails until {until}"
            );
        }
    }

    pub(super) fn well(&self, server: &str) {
        if self.turn_to(None) {
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
    fn only_changes_are_told() {
        let news = News::default();
        let other = State::Refused(std::mem::discriminant(&Problem::OtherDisk));
        assert!(!news.turn_to(None));
        assert!(news.turn_to(Some(State::Waiting)));
        assert!(!news.turn_to(Some(State::Waiting)));
        assert!(news.turn_to(Some(State::GivenUp)));
        assert!(news.turn_to(Some(other)) && !news.turn_to(Some(other)));
        let shrunk = Problem::Shrunk { was: 2, is: 1 };
        assert!(news.turn_to(Some(State::Refused(std::mem::discriminant(&shrunk)))));
        assert!(news.turn_to(None));
    }
}
