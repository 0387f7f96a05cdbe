//! Warnings of clients that were refused, at most one line each second: a client can connect as
//! often as it likes.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The shortest time between two warnings.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was logged of refused clients.
#[derive(Default)]
pub(super) struct Refusals(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<Instant>,
    /// How many were refused without a line.
    unsaid: u64,
}

impl Refusals {
    /// Warns, unless there was a line within the last second.
    pub(super) fn warn(&self, what: impl fmt::Display) {
        let Some(unsaid) = self.line() else {
            return;
        };
        match unsaid {
            0 => tracing::warn!("{what}"),
            _ => tracing::warn!("{what}; {unsaid} more clients were refused before"),
        }
    }

    /// Warns of those of whom there was no line.
    pub(super) fn finish(&self) {
        let unsaid = std::mem::take(&mut self.state().unsaid);
        if unsaid > 0 {
            tracing::warn!("{unsaid} more clients were refused");
        }
    }

    /// The number of refusals without a line, if there can be a line now.
    fn line(&self) -> Option<u64> {
        let mut state = self.state();
        if state.last.is_some_and(|last| last.elapsed() < INTERVAL) {
            state.unsaid += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.unsaid))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_line_each_second_and_it_has_the_number() {
        let refusals = Refusals::default();
        assert_eq!(refusals.line(), Some(0));
        let before = Instant::now();
        let said = (0..50).filter(|_| refusals.line().is_some()).count();
        assert!(said == 0 || before.elapsed() >= INTERVAL);
        refusals.state().last = Instant::now().checked_sub(INTERVAL);
        refusals.state().unsaid = 7;
        assert_eq!(refusals.line(), Some(7));
        assert_eq!(refusals.state().unsaid, 0);
    }
}
