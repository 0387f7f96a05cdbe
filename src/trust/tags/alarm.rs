//! Counts blocks that are not as they were written, and tells it once per burst.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The shortest time between two lines of the log.
const INTERVAL: Duration = Duration::from_secs(30);

/// What is told when a storage returns other data than was written.
#[derive(Default)]
pub(super) struct Alarm {
    count: AtomicU64,
    last: Mutex<Option<Instant>>,
    on_tamper: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Alarm {
    pub(super) fn new(on_tamper: Option<Arc<dyn Fn() + Send + Sync>>) -> Self {
        Self {
            on_tamper,
            ..Self::default()
        }
    }

    /// How often it was raised.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// A block at this offset of the storage is not as it was written.
    #[cold]
    pub(super) fn raise(&self, offset: u64) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let is_first = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let is_first = last.is_none_or(|last| last.elapsed() >= INTERVAL);
            if is_first {
                *last = Some(Instant::now());
            }
            is_first
        };
        if is_first {
            tracing::error!(
                target: "luksmith::state",
                "the data at byte {offset} of the storage is not what was written there; such reads \
                 fail ({count} so far): the storage has changed or rolled back data, or another \
                 program has written to the volume"
            );
        }
        if let Some(on_tamper) = &self.on_tamper {
            on_tamper();
        }
    }
}
