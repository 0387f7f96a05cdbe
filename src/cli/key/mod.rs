//! `luksmith key`: commands for the keyslots of a volume.

mod add;
mod change;
mod enrol;
mod list;
mod priority;
mod remove;
mod rotate;
mod test;
mod volume_key;

use clap::Subcommand;

use super::Session;
use super::error::CommandError;

/// List, add, change, rotate, remove and test passphrases
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    List(list::Args),
    Add(add::Args),
    Change(change::Args),
    Remove(remove::Args),
    Rotate(rotate::Args),
    Test(test::Args),
    Priority(priority::Args),
    VolumeKey(volume_key::Args),
}

const EXAMPLES: &str = "\
Examples:
  luksmith key list disk.img            list the keyslots
  luksmith key add disk.img             add a passphrase
  luksmith key change disk.img          replace a passphrase
  luksmith key remove disk.img          remove a passphrase";

impl Command {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        match self {
            Self::List(args) => args.run(session),
            Self::Add(args) => args.run(session),
            Self::Change(args) => args.run(session),
            Self::Remove(args) => args.run(session),
            Self::Rotate(args) => args.run(session),
            Self::Test(args) => args.run(session),
            Self::Priority(args) => args.run(session),
            Self::VolumeKey(args) => args.run(session),
        }
    }
}
