//! Which libvirt.

use clap::Args;
use luksmith::libvirt::{ConnectOptions, Connection};

use crate::cli::error::CommandError;

/// The connection.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// The libvirt that is meant, remote ones too: qemu:///system, qemu:///session, qemu+ssh://HOST/system
    /// [default: LIBVIRT_DEFAULT_URI, or what libvirt finds]
    #[arg(short = 'c', long, value_name = "URI")]
    pub(crate) connect: Option<String>,
}

impl ConnectArgs {
    /// Connects to change something, or to see values.
    pub(crate) fn open(&self) -> Result<Connection, CommandError> {
        let options = ConnectOptions {
            uri: self.connect.clone(),
            read_only: false,
        };
        Ok(Connection::open(&options)?)
    }
}
