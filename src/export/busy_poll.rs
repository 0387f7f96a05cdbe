//! Busy polling: waits for the next request of a client without sleeping, if it is expected at
//! once. On an idle processor, waking a sleeping thread takes longer than fast storage takes to
//! answer.
//!
//! A thread polls only while its client keeps sending without delay, so an idle client costs
//! nothing. The number of threads that poll at once is limited, to leave processors to others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The longest time for which a thread polls.
const LONGEST: Duration = Duration::from_micros(50);

/// The longest wait that counts as short if the thread has slept. It is longer than [`LONGEST`],
/// since the processors of the client and of this thread had to wake up too. A thread that polls
/// does not have these times.
const SHORT: Duration = Duration::from_micros(150);

/// After this many short waits in a row, the next one polls.
const SHORT_WAITS: u32 = 16;

/// How many threads poll at the moment, and the limit for that.
#[derive(Debug)]
pub(super) struct BusyPollers {
    polling: AtomicUsize,
    most: usize,
}

impl BusyPollers {
    /// The limit for this machine.
    pub(super) fn of_this_machine() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// The limit for a machine with this many processors: one thread for each two.
    fn new(processors: usize) -> Self {
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

/// The waits of one thread, which polls if the latest ones were short.
#[derive(Debug)]
pub(super) struct BusyPoll<'a> {
    pollers: &'a BusyPollers,
    short_waits: u32,
    has_slept: bool,
}

impl<'a> BusyPoll<'a> {
    pub(super) fn new(pollers: &'a BusyPollers) -> Self {
        Self {
            pollers,
            short_waits: 0,
            has_slept: false,
        }
    }

    /// Whether the thread has slept in a call of [`wait`](Self::wait) since this was called last.
    /// If so, the client may have sent all that it wants to, and sleep now.
    #[cfg_attr(
        not(any(feature = "nbd", test)),
        expect(dead_code, reason = "only the NBD server gathers replies")
    )]
    pub(super) fn has_slept(&mut self) -> bool {
        std::mem::take(&mut self.has_slept)
    }

    /// Waits for what `poll` finds. If the latest waits were short, asks it for some time; then
    /// waits with `sleep`. Both get `on`.
    pub(super) fn wait<C, T>(
        &mut self,
        on: &mut C,
        mut poll: impl FnMut(&mut C) -> Option<T>,
        sleep: impl FnOnce(&mut C) -> T,
    ) -> T {
        if let Some(came) = poll(on) {
            self.short_waits = self.short_waits.saturating_add(1);
            return came;
        }
        let start = Instant::now();
        let mut limit = SHORT;
        if self.short_waits >= SHORT_WAITS
            && let Some(_polling) = self.pollers.enter()
        {
            limit = LONGEST;
            while start.elapsed() <= LONGEST {
                // The client may be waiting for the processor of this thread.
                std::thread::yield_now();
                if let Some(came) = poll(on) {
                    return came;
                }
            }
        }
        self.has_slept = true;
        let came = sleep(on);
        self.short_waits = if start.elapsed() > limit {
            0
        } else {
            self.short_waits.saturating_add(1)
        };
        came
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn at_most_one_thread_polls_for_each_two_processors() {
        assert!(BusyPollers::new(1).enter().is_none());
        let pollers = BusyPollers::new(4);
        let both = (pollers.enter(), pollers.enter());
        assert!(both.0.is_some() && both.1.is_some());
        assert!(pollers.enter().is_none());
        assert!(pollers.enter().is_none(), "a refused thread is not counted");
        assert_eq!(pollers.polling.load(Ordering::Relaxed), 2);
        drop(both.0);
        assert!(pollers.enter().is_some());
    }

    #[test]
    fn polling_starts_after_short_waits_and_ends_after_a_long_one() {
        let pollers = BusyPollers::new(2);
        let mut poll = BusyPoll::new(&pollers);
        // What is there already is found without a wait.
        while poll.short_waits < SHORT_WAITS {
            assert!(poll.wait(&mut (), |()| Some(true), |()| false));
        }
        assert!(!poll.has_slept());
        // Without a free processor, or after a long wait, it sleeps at once.
        let long = |_: &mut ()| {
            sleep(2 * SHORT);
            true
        };
        assert!(poll.wait(&mut (), |()| None, long));
        assert!(poll.has_slept() && !poll.has_slept());
        assert_eq!(poll.short_waits, 0);
        let mut asked = 0;
        let once = |asked: &mut u32| {
            *asked += 1;
            None
        };
        assert!(poll.wait(&mut asked, once, |_| true));
        assert_eq!(asked, 1);
        assert_eq!(pollers.polling.load(Ordering::Relaxed), 0);
    }
}
