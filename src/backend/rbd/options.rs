//! How to open an image.

use std::sync::Arc;
use std::time::Duration;

use crate::secret::Passphrase;

/// How an image is opened.
#[derive(Clone, Debug)]
pub struct RbdOptions {
    pub(super) write: bool,
    pub(super) beside: bool,
    pub(super) timeout: Duration,
    pub(super) key: Option<Arc<Passphrase>>,
}

impl RbdOptions {
    /// For reading, with the defaults that each setter names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Opens for writing too, with the exclusive lock of the image. An image that another
        /// client has open for writing is refused.
        write: bool,

        /// With [`write`](Self::write), opens the image beside one other client that has it open
        /// for writing, such as a QEMU. Both have librbd's automatic lock in turn: it comes here
        /// with a write, and goes back with the next write of the other client.
        beside: bool,

        /// The key of the user, as the cluster generated it and without base64. Default: the one
        /// in the keyring that the configuration names.
        key: Option<Arc<Passphrase>>,

        /// How long a cluster or one of its servers may be silent before a call fails. Default: 30
        /// seconds. Less than a second counts as one.
        timeout: Duration,
    }
}

impl Default for RbdOptions {
    fn default() -> Self {
        Self {
            write: false,
            beside: false,
            key: None,
            timeout: Duration::from_secs(30),
        }
    }
}
