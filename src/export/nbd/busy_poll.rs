//! Busy polling: waits for the next request of a client without sleeping, if it is expected at
//! once. On an idle processor, waking a sleeping thread takes longer than fast storage takes to
//! answer.
//!
//! A connection polls only while its client keeps sending without delay, so an idle connection
//! costs nothing. The number of connections that poll at once is limited, to leave processors to
//! others.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::channel::Channel;

/// The longest time for which a connection polls without receiving anything.
const LONGEST: Duration = Duration::from_micros(50);

/// After this many waits in a row that were shorter, the next one polls.
const SHORT_WAITS: u32 = 16;

/// How many connections poll at the moment, and the limit for that.
#[derive(Debug)]
pub(super) struct BusyPollers {
    polling: AtomicUsize,
    most: usize,
}

impl BusyPollers {
    /// The limit for a machine with this many processors: one connection for each two.
    pub(super) fn new(processors: usize) -> Self {
        Self {
            polling: AtomicUsize::new(0),
            most: processors / 2,
        }
    }

    fn enter(&self) -> Option<Polling<'_>> {
        let entered = self
            .polling
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |polling| {
                (polling < self.most).then(|| polling + 1)
            });
        // `then`, not `then_some`: a guard that is made counts down when it is dropped.
        entered.is_ok().then(|| Polling(self))
    }
}

struct Polling<'a>(&'a BusyPollers);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.polling.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Receives for one connection, polling if its latest waits were short.
#[derive(Debug)]
pub(super) struct BusyPoll<'a> {
    pollers: &'a BusyPollers,
    short_waits: u32,
}

impl<'a> BusyPoll<'a> {
    pub(super) fn new(pollers: &'a BusyPollers) -> Self {
        Self {
            pollers,
            short_waits: 0,
        }
    }

    /// As [`Channel::recv`].
    pub(super) fn recv(&mut self, channel: &Channel, buf: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        if self.short_waits >= SHORT_WAITS
            && !channel.is_tls()
            && let Some(_polling) = self.pollers.enter()
        {
            loop {
                if let Some(received) = channel.recv_now(buf)? {
                    return Ok(received);
                }
                if start.elapsed() > LONGEST {
                    break;
                }
                std::hint::spin_loop();
            }
        }
        let received = channel.recv(buf);
        self.short_waits = if start.elapsed() > LONGEST {
            0
        } else {
            self.short_waits.saturating_add(1)
        };
        received
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn at_most_one_connection_polls_for_each_two_processors() {
        assert!(BusyPollers::new(1).enter().is_none());
        let pollers = BusyPollers::new(4);
        let both = (pollers.enter(), pollers.enter());
        assert!(both.0.is_some() && both.1.is_some());
        assert!(pollers.enter().is_none());
        assert!(
            pollers.enter().is_none(),
            "a refused connection is not counted"
        );
        assert_eq!(pollers.polling.load(Ordering::Relaxed), 2);
        drop(both.0);
        assert!(pollers.enter().is_some());
    }

    #[test]
    fn polling_starts_after_short_waits_and_ends_after_a_long_one() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let channel = Channel::plain(here.into());
        let pollers = BusyPollers::new(2);
        let mut poll = BusyPoll::new(&pollers);
        let mut buf = [0; 1];
        // Bytes that are there already are received without a wait. If this thread is not scheduled
        // for a while, the count starts again.
        while poll.short_waits < SHORT_WAITS {
            there.write_all(&[1]).unwrap();
            assert_eq!(poll.recv(&channel, &mut buf).unwrap(), 1);
        }
        channel.set_timeout(Some(10 * LONGEST)).unwrap();
        let waited = poll.recv(&channel, &mut buf).unwrap_err();
        assert_eq!(waited.kind(), io::ErrorKind::TimedOut);
        assert_eq!(poll.short_waits, 0);
        assert_eq!(pollers.polling.load(Ordering::Relaxed), 0);
        drop(there);
        assert_eq!(poll.recv(&channel, &mut buf).unwrap(), 0);
    }
}
