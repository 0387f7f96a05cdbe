//! The `--connect` option.

use clap::Args;
use luksmith::libvirt::{ConnectOptions, Connection};

use crate::cli::error::CommandError;

/// The libvirt to connect to.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// The URI of the libvirt, which may be remote: qemu:///system, qemu:///session,
    /// qemu+ssh://HOST/system [default: LIBVIRT_DEFAULT_URI, or what libvirt finds]
    #[arg(short = 'c', long, value_name = "URI")]
    pub(crate) connect: Option<String>,
}

impl ConnectArgs {
    /// Connects with the right to change objects and to read the values of secrets.
    pub(crate) fn open(&self) -> Result<Connection, CommandError> {
        let options = ConnectOptions::new().uri(self.connect.clone());
        Ok(Connection::open(&options)?)
    }
}
