//! A storage that fails is told of, and when it answers again: not once for each request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::backend::{IoError, chain};

/// How long nothing is said after something was, of a storage that fails now and then.
const QUIET: Duration = Duration::from_secs(30);

/// What was said of a storage.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// The last that was said is that it fails.
    failing: AtomicBool,
    said: Mutex<Option<Instant>>,
}

impl Troubles {
    /// Looks at an outcome of the storage of this export.
    pub(super) fn look<T>(&self, export: &str, outcome: Result<T, IoError>) -> Result<T, IoError> {
        match &outcome {
            Ok(_) if self.failing.load(Ordering::Relaxed) => self.passed(export),
            Err(error @ (IoError::Failed { .. } | IoError::NoSpace { .. })) => {
                let said = self.say(export, error);
                self.failing.fetch_or(said, Ordering::Relaxed);
            }
            // The storage is well, but whoever serves it left something out.
            Err(error @ IoError::Plaintext { .. }) => {
                self.say(export, error);
            }
            // All is well, or a client has asked for what cannot be.
            _ => {}
        }
        outcome
    }

    /// Whether it was said.
    #[cold]
    fn say(&self, export: &str, error: &IoError) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_some_and(|said| said.elapsed() < QUIET) {
            return false;
        }
        *said = Some(Instant::now());
        let error = chain(error);
        tracing::warn!(target: "luksmith::state", "export {export:?}: {error}");
        true
    }

    #[cold]
    fn passed(&self, export: &str) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(target: "luksmith::state", "export {export:?}: the storage answers again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Operation;

    #[test]
    fn what_fails_again_and_again_is_said_once() {
        let troubles = Troubles::default();
        let failed = || {
            troubles.look::<()>(
                "x",
                Err(IoError::Failed {
                    operation: Operation::Read,
                    offset: 0,
                    source: std::io::Error::other("broken"),
                }),
            )
        };
        let failing = || troubles.failing.load(Ordering::Relaxed);
        troubles.look("x", Ok(())).unwrap();
        let refused = Err::<(), _>(IoError::ReadOnly(Operation::Write));
        troubles.look("x", refused).unwrap_err();
        assert!(!failing());
        failed().unwrap_err();
        assert!(failing());
        failed().unwrap_err();
        troubles.look("x", Ok(())).unwrap();
        assert!(!failing());
        // Within the quiet time it is not said again.
        failed().unwrap_err();
        assert!(!failing());
    }
}
