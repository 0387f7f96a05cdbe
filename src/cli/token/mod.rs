//! `luksmith token`: what other programs keep in a LUKS2 header about how to come by a passphrase.

mod export;
mod import;
mod list;
mod remove;
mod unassign;

use clap::Subcommand;
use comfy_table::{Table, presets};
use luksmith::container::{Container, Header};
use luksmith::task::printable;
use serde_json::{Value, json};

use super::Session;
use super::error::CommandError;
use super::table::trimmed;

/// List, import, export and remove the tokens of a LUKS2 header
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    List(list::Args),
    Import(import::Args),
    Export(export::Args),
    Remove(remove::Args),
    Unassign(unassign::Args),
}

const EXAMPLES: &str = "\
Examples:
  luksmith token list disk.img
  luksmith token export disk.img --token-id 0 > token.json
  luksmith token import disk.img --json-file token.json
  luksmith token remove disk.img --token-id 0";

impl Command {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        match self {
            Self::List(args) => args.run(session),
            Self::Import(args) => args.run(session),
            Self::Export(args) => args.run(session),
            Self::Remove(args) => args.run(session),
            Self::Unassign(args) => args.run(session),
        }
    }
}

/// A table of the tokens, if there are any.
pub(crate) fn table(container: &Container) -> Option<String> {
    let Header::Luks2(header) = container.header() else {
        return None;
    };
    let tokens = header.metadata.tokens();
    if tokens.is_empty() {
        return None;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["token", "type", "keyslots"]);
    for (id, token) in tokens {
        let slots = token
            .keyslots
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        table.add_row([id.to_string(), printable(&token.kind), slots]);
    }
    Some(trimmed(&table))
}

/// The same as JSON.
pub(crate) fn tokens_json(container: &Container) -> Value {
    let Header::Luks2(header) = container.header() else {
        return json!([]);
    };
    let tokens = header.metadata.tokens().iter();
    tokens
        .map(|(id, token)| json!({ "token": id, "type": token.kind, "keyslots": token.keyslots }))
        .collect()
}
