//! How a volume on an NBD server is reached.

use std::time::Duration;

use clap::Args;
use luksmith::task::storage::Remote;

/// Patience and connections.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage on an NBD server")]
pub(crate) struct RemoteArgs {
    /// How long a server may be silent or gone before what waits for it fails, in seconds; until then a broken connection is made
    /// anew
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,

    /// Connections to the server, where it lets one client have several
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=16))]
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
