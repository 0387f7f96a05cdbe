//! A flag that asks long work to stop. Key derivations, long copies and prompts check it regularly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A shared flag. Every clone refers to the same flag, and once set it stays set.
///
/// A signal handler may call [`Interrupt::trigger`], which is one atomic store.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    /// Set when the flag does not count any more.
    over: Option<Arc<AtomicBool>>,
}

impl Interrupt {
    /// Creates a flag that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses an existing flag, which for example a signal handler sets.
    #[must_use]
    pub fn from_flag(flag: Arc<AtomicBool>) -> Self {
        Self { flag, over: None }
    }

    /// Sets the flag: asks all work that checks it to stop.
    pub fn trigger(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether the flag is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        let over = || (self.over.as_ref()).is_some_and(|over| over.load(Ordering::Relaxed));
        self.flag.load(Ordering::Relaxed) && !over()
    }

    /// The same flag for as long as the returned [`Heed`] exists; after that it is never set. For
    /// storage that is opened in interruptible work, and then used by work that stops in order.
    #[must_use]
    pub(crate) fn while_heeded(&self) -> (Self, Heed) {
        let over = Arc::new(AtomicBool::new(false));
        let limited = Self {
            flag: self.flag.clone(),
            over: Some(over.clone()),
        };
        (limited, Heed(over))
    }
}

/// Ends the effect of an [`Interrupt`] when it is dropped; see [`Interrupt::while_heeded`].
#[derive(Debug)]
pub(crate) struct Heed(Arc<AtomicBool>);

impl Drop for Heed {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_interrupt_has_no_effect_after_its_end() {
        let interrupt = Interrupt::new();
        let (limited, heed) = interrupt.while_heeded();
        assert!(!limited.is_set());
        interrupt.trigger();
        assert!(limited.is_set() && limited.clone().is_set());
        drop(heed);
        assert!(!limited.is_set() && interrupt.is_set());
    }
}
