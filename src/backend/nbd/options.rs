//! How to connect to a server.

use std::time::Duration;

/// How an export is opened.
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions {
    pub(super) write: bool,
    pub(super) timeout: Duration,
    pub(super) connections: usize,
    pub(super) unflushed: usize,
    pub(super) extents: bool,
    /// The export holds plain data, so copies of what is written are wiped when they are freed.
    pub(super) plain: bool,
}

impl ConnectOptions {
    /// For reading, with the defaults that each setter names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Opens for writing too; a read-only export is refused then.
        write: bool,

        /// How long a server may be silent, and how long it may be away or break connections before
        /// a request that waits for it fails. A reply has to be complete within this time and one
        /// second more for each 16 KiB of data that arrive meanwhile, and once more this time for
        /// each reply to another request that comes before. Default: 30 seconds.
        timeout: Duration,

        /// The maximum number of connections, where the server allows several. Default: 4.
        connections: usize,

        /// The maximum memory, in bytes, for changes that the server has acknowledged and not
        /// flushed. Beyond that they are flushed. Default: 64 MiB.
        unflushed: usize,

        /// Asks the server which parts of the export hold data, for
        /// [`Backend::extents`](crate::backend::Backend::extents). A server that does not know is
        /// used as if all were data. Default: false.
        extents: bool,
    }
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            write: false,
            timeout: Duration::from_secs(30),
            connections: 4,
            unflushed: 64 << 20,
            extents: false,
            plain: false,
        }
    }
}
