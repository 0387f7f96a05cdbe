//! The connection to an NBD server that stores a volume.

use std::time::Duration;

use clap::Args;
use luksmith::task::storage::Remote;

const HEADING: &str = "Storage on an NBD server";

/// Timeout and number of connections.
#[derive(Debug, Clone, Args)]
pub(crate) struct RemoteArgs {
    /// How long to wait for a silent or unreachable server, in seconds. Until then, luksmith
    /// reconnects if the connection breaks. After that, requests fail
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86400), help_heading = HEADING)]
    timeout: u64,

    /// The largest number of connections to the server, if the server allows several for one client
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=16), help_heading = HEADING)]
    connections: u16,
}

impl RemoteArgs {
    pub(crate) fn get(&self) -> Remote {
        let mut remote = Remote::default();
        remote.timeout = Duration::from_secs(self.timeout);
        remote.connections = self.connections.into();
        remote
    }
}
