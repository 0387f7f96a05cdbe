//! Logs that the storage of an export fails and that it works again, without a line for each
//! request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::backend::{IoError, chain};

/// The shortest time between two warnings about one export.
const INTERVAL: Duration = Duration::from_secs(30);

/// What was logged about the storage of an export.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    /// Whether the latest line says that the storage fails.
    failing: AtomicBool,
    last_warning: Mutex<Option<Instant>>,
}

impl FailureLog {
    /// Logs the outcome of a request if it changes what was logged last.
    pub(super) fn record<T>(&self, export: &str, outcome: &Result<T, IoError>) {
        match outcome {
            Ok(_) if self.failing.load(Ordering::Relaxed) => self.recovered(export),
            Err(
                error @ (IoError::Failed { .. }
                | IoError::NoSpace { .. }
                | IoError::TooLarge { .. }),
            ) => {
                let warned = self.warn(export, error);
                self.failing.fetch_or(warned, Ordering::Relaxed);
            }
            // The storage works, but the export was opened without an option that this image needs.
            Err(error @ IoError::Plaintext { .. }) => {
                self.warn(export, error);
            }
            // The request succeeded, or was refused because of what the client asked for.
            _ => {}
        }
    }

    /// Logs a warning, unless there was one within [`INTERVAL`]. Returns whether it did.
    #[cold]
    fn warn(&self, export: &str, error: &IoError) -> bool {
        let mut last = self
            .last_warning
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < INTERVAL) {
            return false;
        }
        *last = Some(Instant::now());
        let error = chain(error);
        tracing::warn!(target: "luksmith::state", "export \"{export}\": {error}");
        true
    }

    #[cold]
    fn recovered(&self, export: &str) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(target: "luksmith::state", "export \"{export}\": the storage answers again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Operation;

    #[test]
    fn repeated_failures_are_logged_once() {
        let log = FailureLog::default();
        let failed = || IoError::Failed {
            operation: Operation::Read,
            offset: 0,
            source: std::io::Error::other("broken"),
        };
        let record = |outcome: Result<(), IoError>| {
            log.record("x", &outcome);
            log.failing.load(Ordering::Relaxed)
        };
        assert!(!record(Ok(())));
        assert!(!record(Err(IoError::ReadOnly(Operation::Write))));
        assert!(record(Err(failed())));
        assert!(record(Err(failed())));
        assert!(!record(Ok(())));
        // Within the interval there is no second warning.
        assert!(!record(Err(failed())));
    }
}
