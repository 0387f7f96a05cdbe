//! Wakes the listening thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use super::serve_error::ServeError;

/// Wakes the listening thread.
pub(super) struct Wake(OwnedFd);

impl Wake {
    pub(super) fn new() -> Result<Self, ServeError> {
        match eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) {
            Ok(fd) => Ok(Self(fd)),
            Err(error) => Err(ServeError::System {
                doing: "make an event",
                source: error.into(),
            }),
        }
    }

    /// Wakes it.
    pub(super) fn up(&self) {
        // It fails only if the counter would overflow, and then the thread is woken already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    pub(super) fn reset(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Wake {
    /// Readable once the thread is to wake up.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
