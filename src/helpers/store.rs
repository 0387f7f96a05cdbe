//! What a helper does with its key store.

use super::failure::Failure;
use crate::secret::LockedBytes;

/// A value, and the name of its version.
pub(super) struct Value {
    pub(super) secret: LockedBytes,
    pub(super) revision: String,
}

/// A key store.
pub(super) trait Store {
    fn get(&self, reference: &str) -> Result<Value, Failure>;

    /// Stores a value. `revision` is the one that has to be replaced. Without it, any value is
    /// replaced if `new` is false, and none if it is true.
    fn store(
        &self,
        reference: &str,
        secret: &LockedBytes,
        new: bool,
        revision: Option<&str>,
    ) -> Result<(), Failure>;

    fn erase(&self, reference: &str) -> Result<(), Failure>;

    /// Fails if the store cannot be used with this reference.
    fn check(&self, reference: &str) -> Result<(), Failure>;
}
