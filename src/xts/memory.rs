//! The memory of key schedules.

use std::convert::Infallible;
use std::ops::Deref;

/// The memory in which key schedules are kept.
///
/// The caller chooses it. This module itself only provides [`Heap`].
pub trait Memory {
    /// An owned value that does not move when its owner moves, and is wiped when it is dropped.
    type Held<T: Send + Sync + 'static>: Deref<Target = T> + Send + Sync + 'static;

    /// Why such memory is not available.
    type Error;

    /// Moves a value into such memory.
    ///
    /// # Errors
    /// Returns an error if no such memory is available.
    fn hold<T: Send + Sync + 'static>(value: T) -> Result<Self::Held<T>, Self::Error>;
}

/// Ordinary memory, which may be swapped out. Key schedules in it are wiped when they are dropped.
#[derive(Clone, Copy, Debug)]
pub struct Heap;

impl Memory for Heap {
    type Held<T: Send + Sync + 'static> = Box<T>;
    type Error = Infallible;

    fn hold<T: Send + Sync + 'static>(value: T) -> Result<Box<T>, Infallible> {
        Ok(Box::new(value))
    }
}
