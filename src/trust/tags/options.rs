//! How tags are kept.

use std::fmt;
use std::sync::Arc;

/// The size of a log in bytes above which the other one begins.
const LOG_BYTES: u64 = 8 << 20;

/// The number of blocks in a log above which the other one begins. It limits the memory.
const LOG_BLOCKS: usize = 200_000;

/// How tags are kept.
#[derive(Clone)]
pub struct TagsOptions {
    pub(super) relaxed: bool,
    pub(super) read_only: bool,
    pub(super) background: bool,
    pub(super) log_bytes: u64,
    pub(super) log_blocks: usize,
    pub(super) on_tamper: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl TagsOptions {
    /// The defaults that each setter names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// A write does not wait until its record is durable, but only a flush does. After a
        /// failure of this host, what was written since the last flush may be errors. Default: off.
        relaxed: bool,

        /// The files of the store are not changed. A storage that is opened for reading needs this.
        /// Default: off.
        read_only: bool,

        /// A thread moves the tags of a long log to the pages. Otherwise the thread does so whose
        /// write made it too long. Default: on.
        background: bool,

        /// The size of a log in bytes above which the other one begins. Default: 8 MiB.
        log_bytes: u64,

        /// The number of blocks in a log above which the other one begins. Default: 200 000.
        log_blocks: usize,

        /// Called when a block is not as it was written. Default: none.
        on_tamper: Option<Arc<dyn Fn() + Send + Sync>>,
    }
}

impl TagsOptions {
    /// Whether they say how tags are used, which makes no sense for a volume without tags.
    pub(crate) fn need_tags(&self) -> bool {
        self.relaxed || self.on_tamper.is_some()
    }
}

impl Default for TagsOptions {
    fn default() -> Self {
        Self {
            relaxed: false,
            read_only: false,
            background: true,
            log_bytes: LOG_BYTES,
            log_blocks: LOG_BLOCKS,
            on_tamper: None,
        }
    }
}

impl fmt::Debug for TagsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TagsOptions")
            .field("relaxed", &self.relaxed)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}
