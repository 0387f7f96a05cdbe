//! `luksmith header repair`: repairs a header after an interruption, a damaged sector, or another
//! program that overwrote its start.

use luksmith::container::{Container, Doubt, OpenOptions};
use luksmith_formats::json::json;

use crate::cli::Session;
use crate::cli::args::{ImageArgs, UndoArgs};
use crate::cli::error::CommandError;
use crate::cli::force::{Force, confirm_all, only};

/// Repair the header: roll back an interrupted change, rewrite what is damaged or overwritten
///
/// A LUKS2 header is repaired from its good copy, which a checksum proves. The magic that wipefs
/// and pvcreate overwrite is put back. In LUKS1, damaged entries of keyslots that are not in use
/// are restored too. The command asks before it writes what no checksum proves, and before it
/// overwrites other data. If too little is left, only a header backup helps. With --json:
/// {"repaired": [text]}
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Go on without asking: unproven, if no checksum proves the result; overwrite, if there is
    /// other data in the place of the header
    #[arg(long, value_name = "WHAT", value_parser = only(&[Force::Unproven, Force::Overwrite]))]
    force: Vec<Force>,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith header repair disk.img
  luksmith header repair disk.img --force unproven
  luksmith header repair /dev/sdb1 --undo-file sdb1.undo";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let storage = self.image.get().header_storage_to_write(session)?;
        let options = OpenOptions::new(storage.undo(self.undo.path()));
        let storage = storage.header();
        let agree = |doubts: &[Doubt]| self.agree(doubts);
        let repaired = Container::repair_if(&storage, &options, agree)
            .map_err(|error: CommandError| error.about(self.image.header_location()))?;
        let repaired = repaired.iter().map(ToString::to_string).collect::<Vec<_>>();
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

    fn agree(&self, doubts: &[Doubt]) -> Result<(), CommandError> {
        let losses = doubts.iter().map(|doubt| match doubt {
            Doubt::Overwrites(_) => (Force::Overwrite, doubt.to_string()),
            _ => (Force::Unproven, doubt.to_string()),
        });
        confirm_all(&self.force, &losses.collect::<Vec<_>>())
    }
}
