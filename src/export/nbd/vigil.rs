//! Waiting awake for a client that asks again at once: who sleeps has to be woken, which takes longer on an idle
//! processor than a fast storage takes to answer.
//!
//! A connection stays awake only while that keeps paying off, so an idle one costs nothing; and no more connections do so
//! at once than leave processors to others.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::channel::Channel;

/// Nobody stays awake for longer than this without having received something.
const LONGEST: Duration = Duration::from_micros(50);

/// So many waits in a row have to have been shorter before one is spent awake.
const ROW: u32 = 16;

/// How many connections wait awake, and how many may at once.
#[derive(Debug)]
pub(super) struct Watch {
    awake: AtomicUsize,
    most: usize,
}

impl Watch {
    /// For a machine with so many processors: one connection for each two.
    pub(super) fn new(processors: usize) -> Self {
        Self {
            awake: AtomicUsize::new(0),
            most: processors / 2,
        }
    }

    fn enter(&self) -> Option<Awake<'_>> {
        let entered = self
            .awake
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |awake| {
                (awake < self.most).then(|| awake + 1)
            });
        // Lazily: a guard that is made and dropped would count down.
        entered.is_ok().then(|| Awake(self))
    }
}

struct Awake<'a>(&'a Watch);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.awake.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How soon one client has gone on, lately.
#[derive(Debug)]
pub(super) struct Vigil<'a> {
    watch: &'a Watch,
    short_waits: u32,
}

impl<'a> Vigil<'a> {
    pub(super) fn new(watch: &'a Watch) -> Self {
        Self {
            watch,
            short_waits: 0,
        }
    }

    /// As [`Channel::recv`].
    pub(super) fn recv(&mut self, channel: &Channel, buf: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        if self.short_waits >= ROW
            && !channel.is_tls()
            && let Some(_awake) = self.watch.enter()
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
    fn half_of_the_processors_at_most_wait_awake() {
        assert!(Watch::new(1).enter().is_none());
        let watch = Watch::new(4);
        let both = (watch.enter(), watch.enter());
        assert!(both.0.is_some() && both.1.is_some());
        assert!(watch.enter().is_none());
        assert!(
            watch.enter().is_none(),
            "who was refused counts for nothing"
        );
        assert_eq!(watch.awake.load(Ordering::Relaxed), 2);
        drop(both.0);
        assert!(watch.enter().is_some());
    }

    #[test]
    fn who_was_quick_is_waited_for_awake_and_who_was_slow_is_not() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let channel = Channel::plain(here.into());
        let watch = Watch::new(2);
        let mut vigil = Vigil::new(&watch);
        let mut buf = [0; 1];
        // What has come already is received without a wait. A test that is not run for a while starts again.
        while vigil.short_waits < ROW {
            there.write_all(&[1]).unwrap();
            assert_eq!(vigil.recv(&channel, &mut buf).unwrap(), 1);
        }
        channel.set_timeout(Some(10 * LONGEST)).unwrap();
        let waited = vigil.recv(&channel, &mut buf).unwrap_err();
        assert_eq!(waited.kind(), io::ErrorKind::TimedOut);
        assert_eq!(vigil.short_waits, 0);
        assert_eq!(watch.awake.load(Ordering::Relaxed), 0);
        drop(there);
        assert_eq!(vigil.recv(&channel, &mut buf).unwrap(), 0);
    }
}
