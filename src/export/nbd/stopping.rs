//! Whether the server is stopping, and whether clients still get replies.

use std::sync::atomic::{AtomicBool, Ordering};

use luksmith_formats::nbd::ErrorNumber;

use super::error::Refusal;

/// Whether the server is stopping, and whether clients still get replies. Requests check this
/// between their steps.
#[derive(Debug, Default)]
pub(super) struct Stopping {
    asked: AtomicBool,
    given_up: AtomicBool,
}

impl Stopping {
    /// The server stops: it accepts nothing further.
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// The time for the last replies is over, and no client receives any more.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// For requests of any length, which a client can send without bound: fails once the server
    /// stops.
    pub(super) fn refuse_long(&self) -> Result<(), Refusal> {
        refuse_if(self.is_asked())
    }

    /// For requests of limited length, which are still answered when the server stops: fails once
    /// their client cannot get the answer.
    pub(super) fn refuse_unanswerable(&self) -> Result<(), Refusal> {
        refuse_if(self.given_up.load(Ordering::Acquire))
    }
}

fn refuse_if(stopped: bool) -> Result<(), Refusal> {
    if stopped {
        let message = "the server is stopping";
        return Err(Refusal::new(ErrorNumber::Shutdown, message));
    }
    Ok(())
}
