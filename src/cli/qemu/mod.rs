//! `luksmith qemu`: volumes for QEMU without libvirt.

mod amend;
mod args;
mod master;

use clap::Subcommand;

use super::Session;
use super::error::CommandError;

/// Open a volume with QEMU; change passphrases while it runs
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    Args(Box<args::Args>),
    #[command(subcommand)]
    Amend(Box<amend::Command>),
}

const EXAMPLES: &str = "\
Examples:
  luksmith qemu args disk.img --key-file disk.key          the arguments with which to start QEMU
  luksmith qemu amend change /run/vm1.qmp                  a new passphrase, while the machine runs";

impl Command {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        match self {
            Self::Args(args) => args.run(session),
            Self::Amend(command) => command.run(session),
        }
    }
}
