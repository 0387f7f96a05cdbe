//! `luksmith trust status`: what is kept in a folder.

use luksmith::task::outcome::{kept, kept_cells};
use luksmith::task::trust::list;
use luksmith::trust::TrustDir;

use std::path::PathBuf;

use crate::cli::Session;
use crate::cli::args::LocalFile;
use crate::cli::error::CommandError;
use crate::cli::table::{table, trimmed};

/// List the volumes that are pinned in a folder
///
/// No volume is opened: `luksmith trust verify` compares one with its pin.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The folder of the pins
    #[arg(value_name = "DIR", value_parser = LocalFile)]
    dir: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  luksmith trust status pins
  luksmith trust status pins --json | jq '.volumes[].place'";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let entries = list(&TrustDir::at(&self.dir))?;
        if session.json {
            session.output.json(&kept(&entries).into());
        } else if entries.is_empty() {
            session.output.line("nothing is pinned here");
        } else {
            let mut table = table();
            table.set_header(["UUID", "type", "sequence", "place"]);
            for entry in &entries {
                table.add_row(kept_cells(entry));
            }
            session.output.lines(trimmed(&table));
        }
        // A pin that cannot be used is shown, and an error as well.
        let problem = entries.into_iter().find_map(|entry| entry.pin.err());
        problem.map_or(Ok(()), |error| Err(error.into()))
    }
}
