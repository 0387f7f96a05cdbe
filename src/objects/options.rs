//! How a volume in an object store is opened.

use std::path::PathBuf;
use std::time::Duration;

use super::ObjectsError;

/// How a volume in an object store is opened.
#[derive(Clone, Debug)]
pub struct ObjectsOptions {
    pub(super) write: bool,
    pub(super) take_over: bool,
    pub(super) timeout: Duration,
    pub(super) pause: Duration,
    pub(super) host: String,
    pub(super) uploads: usize,
    pub(super) connections: usize,
    pub(super) checkpoint_bytes: u64,
    pub(super) checkpoint_objects: u64,
    pub(super) map_memory: usize,
    pub(super) journal: Option<PathBuf>,
    pub(super) journal_lost: bool,
    pub(super) journal_size: u64,
    pub(super) of_writer: Option<u32>,
    pub(super) cache: Option<PathBuf>,
    pub(super) cache_size: u64,
    pub(super) not_closed: Option<NotClosed>,
}

/// What is called when a volume is dropped, and closing it fails.
#[derive(Clone, Debug)]
pub struct NotClosed {
    volume: String,
    tell: fn(&str, ObjectsError),
}

impl NotClosed {
    /// This function, which gets the name of the volume with the error.
    #[must_use]
    pub fn new(volume: String, tell: fn(&str, ObjectsError)) -> Self {
        Self { volume, tell }
    }

    pub(super) fn tell(&self, error: ObjectsError) {
        (self.tell)(&self.volume, error);
    }
}

impl ObjectsOptions {
    /// For reading, with the defaults that each setter names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Opens for writing too. A volume that its last writer has not closed is refused.
        write: bool,

        /// Opens for writing although the last writer has not closed the volume. If it still runs,
        /// all its later calls fail.
        take_over: bool,

        /// Only after the writer of this epoch: if another one has opened the volume since, it is
        /// busy. Default: none.
        of_writer: Option<u32>,

        /// How long a request is sent again that fails. Default: 30 seconds.
        timeout: Duration,

        /// The pause before a request is sent again the first time; each further pause is twice as
        /// long. Default: 50 milliseconds.
        pause: Duration,

        /// The name of this host, which other clients of the store see. Default: none.
        host: String,

        /// How many objects are uploaded at the same time. Default: 8.
        uploads: usize,

        /// How many objects are read or deleted at the same time. Default: 16.
        connections: usize,

        /// After how many bytes a checkpoint is made. Default: 512 MiB.
        checkpoint_bytes: u64,

        /// After how many objects a checkpoint is made. Default: 4096.
        checkpoint_objects: u64,

        /// The memory for the map of the volume in bytes. Default: 48 MiB.
        map_memory: usize,

        /// The path of the file for the journal of a volume whose flushes are done when that has
        /// the data. Default: none.
        journal: Option<PathBuf>,

        /// Takes over a volume without the journal of its last writer: what only that has is lost.
        journal_lost: bool,

        /// The size of the journal in bytes above which writers wait until the store has
        /// everything, at least 4 KiB. Default: 512 MiB.
        journal_size: u64,

        /// The path of a file for ciphertext that was read, which is new, empty, or was such a
        /// cache. Default: none.
        cache: Option<PathBuf>,

        /// The largest size of that file in bytes. Default: 1 GiB.
        cache_size: u64,

        /// Called when the volume is dropped, and closing it fails. Default: a warning is logged.
        not_closed: Option<NotClosed>,
    }
}

impl Default for ObjectsOptions {
    fn default() -> Self {
        Self {
            write: false,
            take_over: false,
            timeout: Duration::from_secs(30),
            pause: Duration::from_millis(50),
            host: String::new(),
            uploads: 8,
            connections: 16,
            checkpoint_bytes: 512 << 20,
            checkpoint_objects: 4096,
            map_memory: 48 << 20,
            journal: None,
            journal_lost: false,
            journal_size: 512 << 20,
            of_writer: None,
            cache: None,
            cache_size: 1 << 30,
            not_closed: None,
        }
    }
}
