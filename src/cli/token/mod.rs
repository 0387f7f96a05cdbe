//! `luksmith token`: the tokens of a LUKS2 header, with which other programs find a passphrase.

mod add;
mod export;
mod import;
mod list;
mod remove;
pub(crate) mod shown;
mod unassign;

use clap::Subcommand;

use super::Session;
use super::error::CommandError;

/// List, add, import, export and remove tokens (LUKS2)
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    List(list::Args),
    Add(add::Args),
    Import(import::Args),
    Export(export::Args),
    Remove(remove::Args),
    Unassign(unassign::Args),
}

const EXAMPLES: &str = "\
Examples:
  luksmith token list disk.img
  luksmith token add disk.img --key-description disk:key
  luksmith token export disk.img --token-id 0 > token.json
  luksmith token import disk.img --json-file token.json
  luksmith token remove disk.img --token-id 0";

impl Command {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        match self {
            Self::List(args) => args.run(session),
            Self::Add(args) => args.run(session),
            Self::Import(args) => args.run(session),
            Self::Export(args) => args.run(session),
            Self::Remove(args) => args.run(session),
            Self::Unassign(args) => args.run(session),
        }
    }
}
