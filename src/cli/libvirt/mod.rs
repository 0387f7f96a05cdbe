//! `luksmith libvirt`: the passphrases that libvirt keeps, and the disks that they open.

mod connect;
mod secret;
mod value;

use clap::Subcommand;

use super::Session;
use super::error::CommandError;

pub(crate) use value::{generate, value};

/// Keep passphrases in libvirt's secrets, and the disks that they open
///
/// Needs libvirt's client library, which is loaded when one of these commands runs.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    #[command(subcommand)]
    Secret(secret::Command),
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt secret list                                            the secrets, and who uses them
  luksmith libvirt secret define --usage volume:/pool/vm.img --generate   a new one with a random passphrase
  luksmith info vm.img                                                    no secret is needed to look";

impl Command {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        match self {
            Self::Secret(command) => command.run(session),
        }
    }
}
