//! What decrypts single sectors whose code matches.

use crate::secret::LockError;

/// A cipher with tags, with its key in locked memory.
pub(in crate::crypt) type Opener = Result<Box<dyn SectorOpener>, LockError>;

/// Decrypts single sectors whose code matches.
pub(in crate::crypt) trait SectorOpener: Send + Sync {
    /// Decrypts a sector in place. Returns false if its code does not match: the content of `data`
    /// is unspecified then, and may not be shown. The caller passes a tag of the right size.
    #[must_use]
    fn open(&self, number: u64, tag: &[u8], data: &mut [u8]) -> bool;
}
