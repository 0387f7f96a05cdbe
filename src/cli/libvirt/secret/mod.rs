//! `luksmith libvirt secret`: commands for libvirt's secrets.

mod define;
mod get;
mod list;
mod remove;
mod set;

use clap::Subcommand;

use crate::cli::Session;
use crate::cli::error::CommandError;

/// Define, set, read, list and remove libvirt's secrets
///
/// SECRET is a UUID, or usage=TYPE:ID, as in usage=volume:/pool/vm.img.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    Define(define::Args),
    Set(set::Args),
    Get(get::Args),
    List(list::Args),
    Remove(remove::Args),
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt secret define --usage volume:/pool/vm.img       a secret without a value; prints its UUID
  luksmith libvirt secret set usage=volume:/pool/vm.img            asks for the value
  luksmith libvirt secret list                                     all secrets and their users
  luksmith key test /pool/vm.img --key libvirt:usage=volume:/pool/vm.img";

impl Command {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        match self {
            Self::Define(args) => args.run(session),
            Self::Set(args) => args.run(session),
            Self::Get(args) => args.run(session),
            Self::List(args) => args.run(session),
            Self::Remove(args) => args.run(session),
        }
    }
}
