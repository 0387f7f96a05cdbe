//! Secrets: passphrases and volume keys in locked memory, and the sources that they are read from.
//!
//! This crate never puts a secret into a `String` or on the ordinary heap. A secret type has no
//! `Clone` and a redacted `Debug`. No source takes a secret from the command line or the
//! environment, where other processes can see it.

mod allocator;
mod boxed;
mod error;
mod helper;
mod helper_error;
mod input;
mod key_store;
mod keys;
mod locked;
mod purpose;
mod run;
mod schemes;
mod source;
mod stack;
mod terminal;
mod trusted;

pub use allocator::WipingAllocator;
pub(crate) use boxed::LockedBox;
pub use error::{ParseSourceError, SecretError};
pub use helper::{HELPER_TIME, Helper};
pub use helper_error::HelperError;
#[cfg(feature = "nbd")]
pub(crate) use input::Growing;
pub use key_store::{
    Expected, HelperFolders, HelperScheme, KeyStore, KeyStoreError, StoreReference, StoreSource,
    StoredValue,
};
pub use keys::{Passphrase, VolumeKey, random};
pub use locked::{LockError, LockedBytes};
pub use purpose::{Purpose, VolumeName, Wanted};
pub use schemes::{AnySource, Scheme};
pub use source::{MAX_KEY_FILE, Source};
pub use stack::scrub_stack;
#[cfg(test)]
pub(crate) use stack::tests as stack_tests;
pub(crate) use stack::{scrub_stack_of_kernels, scrub_stack_of_sectors};
pub use terminal::MAX_TYPED;

/// A source of passphrases: a terminal, a file, a descriptor, another program.
pub trait SecretSource: Send + Sync {
    /// Reads the secret. A source that asks a person shows the label of `purpose`.
    ///
    /// # Errors
    /// [`SecretError`]; [`SecretError::Interrupted`] when `purpose.interrupt` was set meanwhile.
    fn read(&self, purpose: Purpose<'_>) -> Result<Passphrase, SecretError>;
}

/// A passphrase that is known already. Each read is a copy of it.
impl SecretSource for Passphrase {
    fn read(&self, _: Purpose<'_>) -> Result<Passphrase, SecretError> {
        Ok(Self::copy_from(self.as_bytes())?)
    }
}
