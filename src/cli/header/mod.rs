//! `luksmith header`: commands for the header as a whole.

mod backup;
mod erase;
mod repair;
mod restore;

use clap::Subcommand;

use super::Session;
use super::error::CommandError;

/// Back up, restore, repair and erase the header
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    Backup(backup::Args),
    Restore(restore::Args),
    Repair(repair::Args),
    Erase(erase::Args),
}

const EXAMPLES: &str = "\
Examples:
  luksmith header backup disk.img disk.header     a copy, in case the header is damaged
  luksmith header restore disk.img disk.header
  luksmith header repair disk.img                 roll back an interrupted change, or rewrite a damaged copy
  luksmith header erase disk.img                  destroy all keyslots";

impl Command {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        match self {
            Self::Backup(args) => args.run(session),
            Self::Restore(args) => args.run(session),
            Self::Repair(args) => args.run(session),
            Self::Erase(args) => args.run(session),
        }
    }
}
