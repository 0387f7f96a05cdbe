//! Room before the content of a storage.

use std::ops::Range;

use super::{Backend, IoError};

/// A storage that can move its whole content without a copy of it, to make room for a header.
///
/// A move is not atomic. It begins at the end of the content: after a crash, everything from some
/// byte on has its new place, and everything before it its old one. Between both parts there is a
/// hole of the length of the move, which reads as zeroes. So the size is that before the move or
/// that after it, and never another one.
pub trait Room: Backend {
    /// Whether [`insert`](Self::insert) is possible here, as far as that is known before.
    ///
    /// # Errors
    /// [`IoError::Unsupported`] if it is not.
    fn can_insert(&self, length: u64) -> Result<(), IoError>;

    /// Moves the whole content by `length` bytes towards the end. The room before it reads as
    /// zeroes.
    ///
    /// # Errors
    /// What the system reports. A part of the content may be moved then.
    fn insert(&self, length: u64) -> Result<(), IoError>;

    /// Removes a range, and moves everything after it to its start.
    ///
    /// # Errors
    /// What the system reports. A part of the content may be moved then.
    fn remove(&self, range: Range<u64>) -> Result<(), IoError>;
}
