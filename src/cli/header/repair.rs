//! `luksmith header repair`: repairs a header after an interruption or a damaged sector.

use luksmith::container::{Container, OpenOptions};
use luksmith_formats::json::json;

use crate::cli::Session;
use crate::cli::args::{ImageArgs, UndoArgs};
use crate::cli::error::CommandError;

/// Repair the header: roll back an interrupted change, rewrite a damaged copy of a LUKS2 header
///
/// This needs an undo record or a good copy; without both, only a header backup helps. With --json:
/// {"repaired": [text]}
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith header repair disk.img
  luksmith header repair /dev/sdb1 --undo-file sdb1.undo";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let storage = self.image.get().header_storage_to_write(session)?;
        let options = OpenOptions::new(storage.undo(self.undo.path()));
        let repaired = Container::repair(storage.header(), options)?
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>();
        if self.json {
            session.output.json(&json!({ "repaired": repaired }));
        } else if repaired.is_empty() {
            session.output.line("nothing to repair");
        }
        for line in repaired.iter().filter(|_| !self.json) {
            session.output.line(line);
        }
        Ok(())
    }
}
