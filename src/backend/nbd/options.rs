//! How to connect to a server.

use std::time::Duration;

/// How an export is opened. The default reads.
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions {
    /// For writing too; a read-only export is refused then.
    pub write: bool,
    /// How long a server may be silent, and how long it may be away before what waits for it fails.
    pub timeout: Duration,
    /// The most connections, where the server allows several.
    pub connections: usize,
    /// The most memory, in bytes, for changes that the server has acknowledged and not flushed; beyond that they are flushed.
    pub unflushed: usize,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            write: false,
            timeout: Duration::from_secs(30),
            connections: 4,
            unflushed: 64 << 20,
        }
    }
}
