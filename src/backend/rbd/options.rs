//! How to open an image.

use std::time::Duration;

/// How an image is opened.
#[derive(Clone, Copy, Debug)]
pub struct RbdOptions {
    pub(super) write: bool,
    pub(super) timeout: Duration,
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

        /// How long a cluster or one of its servers may be silent before a call fails. Default: 30
        /// seconds. Less than a second counts as one.
        timeout: Duration,
    }
}

impl Default for RbdOptions {
    fn default() -> Self {
        Self {
            write: false,
            timeout: Duration::from_secs(30),
        }
    }
}
