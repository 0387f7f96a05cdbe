//! The connection to the server or the cluster that stores a volume.

use std::time::Duration;

use clap::Args;
use luksmith::task::storage::Remote;

const HEADING: &str = "Storage on a server";

/// Timeout and number of connections.
#[derive(Debug, Clone, Args)]
pub(crate) struct RemoteArgs {
    /// How long to wait for a silent or unreachable server or cluster, in seconds. Until then,
    /// luksmith reconnects if the connection breaks. After that, requests fail
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86400), help_heading = HEADING)]
    timeout: u32,

    /// The largest number of connections, to an NBD server only if it allows several for one client
    /// [default: 4 to an NBD server, 16 to an object store]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16), help_heading = HEADING)]
    connections: Option<u16>,
}

impl RemoteArgs {
    pub(crate) fn get(&self) -> Remote {
        let mut remote = Remote::default();
        remote.timeout = Duration::from_secs(self.timeout.into());
        remote.connections = self.connections.map(usize::from);
        remote
    }
}
