//! `luksmith libvirt secret list`: lists the secrets and their users.

use comfy_table::Table;
use luksmith::task::libvirt::secrets::{self, Listed};
use luksmith::task::printable;
use luksmith_formats::json::json;

use crate::cli::Session;
use crate::cli::error::CommandError;
use crate::cli::libvirt::connect::ConnectArgs;
use crate::cli::table;

/// List the secrets
///
/// libvirt does not tell whether a private secret has a value.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    connect: ConnectArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt secret list
  luksmith libvirt secret list --json | jq -r '.secrets[] | select(.has_value == false) | .secret'
  luksmith libvirt secret list --connect qemu+ssh://host/system";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let connection = self.connect.open()?;
        let listed = secrets::list(&connection, session)?;
        if session.json {
            let secrets = listed.iter().map(Listed::json).collect::<Vec<_>>();
            session.output.json(&json!({ "secrets": secrets }));
        } else {
            session.output.lines(table(&listed));
        }
        Ok(())
    }
}

fn table(rows: &[Listed]) -> Table {
    let mut table = table::table();
    table.set_header(["uuid", "usage", "kept", "value", "used by"]);
    for row in rows {
        let kept = match (row.definition.private, row.definition.ephemeral) {
            (false, false) => "on disk",
            (true, false) => "on disk, private",
            (false, true) => "in memory",
            (true, true) => "in memory, private",
        };
        let value = match row.has_value {
            Some(true) => "yes",
            Some(false) => "none",
            None => "?",
        };
        let usage = row
            .usage
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string);
        let users = row
            .users
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ");
        table.add_row([
            row.uuid.to_string().as_str(),
            &printable(&usage),
            kept,
            value,
            &printable(&users),
        ]);
    }
    table
}
