//! `luksmith libvirt`: commands for passphrases in libvirt's secrets, and for the disks that they
//! open.

mod attach;
mod change;
mod connect;
mod disk;
mod provision;
mod rekey;
mod rotate;
mod secret;
mod state;
mod xml;

use clap::Subcommand;

use super::Session;
use super::error::CommandError;

/// Manage libvirt's secrets, and the disks that they open
///
/// These commands need libvirt's client library, which is loaded when one of them runs.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    #[command(subcommand)]
    Secret(secret::Command),
    Provision(Box<provision::Args>),
    #[command(subcommand)]
    Xml(xml::Command),
    Attach(Box<attach::AttachArgs>),
    Detach(attach::DetachArgs),
    Rotate(Box<rotate::Args>),
    Rekey(Box<rekey::Args>),
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt secret list                                            the secrets and their users
  luksmith libvirt secret define --usage volume:/pool/vm.img --generate   a new one with a random passphrase
  luksmith libvirt provision --pool default --name vm1.luks --size 20G    a volume with its secret
  luksmith libvirt attach vm1 /vm/data.img                                a volume as a disk of a domain
  luksmith libvirt rotate vm1                                             new passphrases for the disks of a domain
  luksmith libvirt rekey vm1                                              new volume keys, by a copy
  luksmith libvirt rotate --all --check                                   does every secret open its volume?";

impl Command {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        match self {
            Self::Secret(command) => command.run(session),
            Self::Provision(args) => args.run(session),
            Self::Xml(command) => command.run(session),
            Self::Attach(args) => args.run(session),
            Self::Detach(args) => args.run(session),
            Self::Rotate(args) => args.run(session),
            Self::Rekey(args) => args.run(session),
        }
    }
}
