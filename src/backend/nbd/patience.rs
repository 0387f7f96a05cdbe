//! How long the client waits for a server, and that the interrupt ends every wait.
//!
//! A server may be slow, but must not be able to keep a client waiting without end by sending a
//! byte now and then. So each wait is limited as a whole. A reply has the time of the timeout, and
//! a second more for each [`SLOWEST`] bytes of data that arrive meanwhile. This is enough for large
//! replies over a slow link, but not for a server that only sends bytes to look alive. A server may
//! carry out one request after the other, so a reply has the timeout once more for each reply to
//! another request that comes before it.

use std::io;
use std::time::{Duration, Instant};

use super::error::Problem;
use crate::Interrupt;

/// The slowest progress that counts, in bytes for each second.
const SLOWEST: u64 = 16 << 10;

/// The interval at which a wait looks at the interrupt.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// After an interrupt, requests in flight have this time. A server that works answers within it, so
/// work that must not stay half done can be completed.
const GRACE: Duration = Duration::from_secs(2);

/// How long to wait for a server.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    /// How long a server may be silent or away, and the time for a reply besides that for its data.
    pub(super) timeout: Duration,
    pub(super) interrupt: Interrupt,
}

impl Patience {
    /// A limit for all of several steps.
    pub(super) fn deadline(&self, within: Duration) -> Deadline {
        Deadline {
            until: Instant::now() + within,
            within,
            interrupt: self.interrupt.clone(),
        }
    }

    /// The time for work in which `bytes` are transferred.
    pub(super) fn time_for(&self, bytes: u64) -> Duration {
        (self.timeout).saturating_add(Duration::from_secs(bytes / SLOWEST))
    }

    /// Waits for this time.
    pub(super) fn pause(&self, time: Duration) -> Result<(), Problem> {
        let deadline = self.deadline(time);
        while deadline.check().is_ok() {
            std::thread::sleep(deadline.step());
        }
        self.check()
    }

    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.interrupt.is_set() {
            return Err(Problem::Interrupted);
        }
        Ok(())
    }
}

/// A limit for several steps together.
#[derive(Clone, Debug)]
pub(super) struct Deadline {
    until: Instant,
    within: Duration,
    interrupt: Interrupt,
}

impl Deadline {
    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.interrupt.is_set() {
            return Err(Problem::Interrupted);
        }
        if Instant::now() >= self.until {
            return Err(Problem::Silent(self.within));
        }
        Ok(())
    }

    /// As [`check`](Self::check), for a [`Channel`](crate::channel::Channel) that waits.
    pub(super) fn go_on(&self) -> io::Result<()> {
        self.check().map_err(|_| io::ErrorKind::TimedOut.into())
    }

    /// How long one step waits, before this is checked again.
    pub(super) fn step(&self) -> Duration {
        let left = self.until.saturating_duration_since(Instant::now());
        left.min(LOOK).max(Duration::from_millis(1))
    }
}

/// What a server has done during a wait.
#[derive(Clone, Copy, Default)]
pub(super) struct Progress {
    /// How many bytes of data it has taken or sent.
    pub(super) moved: u64,
    /// How many other requests it has replied to.
    pub(super) replies: u32,
}

/// The wait for one reply, or for one message to be sent.
pub(super) struct Wait {
    begun: Instant,
    interrupted: Option<Instant>,
}

impl Wait {
    pub(super) fn begin() -> Self {
        Self {
            begun: Instant::now(),
            interrupted: None,
        }
    }

    /// How long to wait before this is called again. `active` is when the server last did anything,
    /// and `progress` what it has done since the beginning.
    ///
    /// # Errors
    /// [`Problem::Silent`], [`Problem::Slow`], [`Problem::Interrupted`].
    pub(super) fn left(
        &mut self,
        patience: &Patience,
        active: Instant,
        progress: Progress,
    ) -> Result<Duration, Problem> {
        if patience.interrupt.is_set() {
            let since = self.interrupted.get_or_insert_with(Instant::now);
            if since.elapsed() >= GRACE {
                return Err(Problem::Interrupted);
            }
        }
        let timeout = patience.timeout;
        let until_silent = timeout.checked_sub(active.max(self.begun).elapsed());
        let most = patience
            .time_for(progress.moved)
            .saturating_add(timeout.saturating_mul(progress.replies));
        let until_slow = most.checked_sub(self.begun.elapsed());
        match (until_silent, until_slow) {
            (None | Some(Duration::ZERO), _) => Err(Problem::Silent(timeout)),
            (_, None | Some(Duration::ZERO)) => Err(Problem::Slow(most)),
            (Some(silent), Some(slow)) => Ok(silent.min(slow).min(LOOK)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(timeout: Duration) -> Patience {
        Patience {
            timeout,
            interrupt: Interrupt::new(),
        }
    }

    fn begun(before: Duration) -> Wait {
        Wait {
            begun: Instant::now().checked_sub(before).unwrap(),
            interrupted: None,
        }
    }

    #[test]
    fn a_reply_has_the_timeout_and_time_for_its_data() {
        let patience = patience(Duration::from_secs(30));
        let left = |before, moved, replies| {
            let (now, progress) = (Instant::now(), Progress { moved, replies });
            begun(Duration::from_secs(before)).left(&patience, now, progress)
        };
        assert!(left(20, 0, 0).is_ok());
        let dripping = left(40, 0, 0);
        assert!(matches!(dripping, Err(Problem::Slow(_))));
        assert!(matches!(left(40, 5 * SLOWEST, 0), Err(Problem::Slow(_))));
        assert!(left(40, 60 * SLOWEST, 0).is_ok(), "a slow link");
        assert!(left(40, 0, 1).is_ok(), "one request after the other");
    }

    #[test]
    fn a_server_that_falls_silent_is_not_waited_for() {
        let patience = patience(Duration::from_secs(30));
        let mut wait = begun(Duration::from_secs(60));
        let active = Instant::now().checked_sub(Duration::from_secs(31)).unwrap();
        let progress = Progress {
            moved: 1 << 40,
            replies: 100,
        };
        let left = wait.left(&patience, active, progress);
        assert!(matches!(left, Err(Problem::Silent(_))));
    }

    #[test]
    fn an_interrupt_ends_every_wait() {
        let patience = patience(Duration::from_secs(3600));
        patience.interrupt.trigger();
        let deadline = patience.deadline(Duration::from_secs(3600));
        assert!(matches!(deadline.check(), Err(Problem::Interrupted)));
        let paused = patience.pause(Duration::from_secs(3600));
        assert!(matches!(paused, Err(Problem::Interrupted)));
        let mut wait = Wait::begin();
        let left = wait.left(&patience, Instant::now(), Progress::default());
        assert!(left.is_ok());
        wait.interrupted = Instant::now().checked_sub(2 * GRACE);
        let left = wait.left(&patience, Instant::now(), Progress::default());
        assert!(matches!(left, Err(Problem::Interrupted)));
    }
}
