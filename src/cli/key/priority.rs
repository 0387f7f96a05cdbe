//! `luksmith key priority`: sets the order in which keyslots are tried.

use luksmith::task::outcome::{Change, Changed};
use luksmith_formats::luks2::Priority;

use crate::cli::Session;
use crate::cli::args::{Choice, ImageArgs, UndoArgs, choice};
use crate::cli::error::CommandError;

/// Set the priority of a keyslot (LUKS2)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// The keyslot
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: u32,

    /// When the keyslot is tried
    #[arg(long, value_name = "WHEN", value_parser = choice(PRIORITIES))]
    priority: Priority,

    #[command(flatten)]
    undo: UndoArgs,
}

const PRIORITIES: &[Choice<Priority>] = &[
    ("prefer", "before all others", Priority::Prefer),
    ("normal", "after the preferred ones", Priority::Normal),
    ("ignore", "only if --keyslot names it", Priority::Ignore),
];

const EXAMPLES: &str = "\
Examples:
  luksmith key priority disk.img --keyslot 1 --priority prefer
  luksmith key priority disk.img --keyslot 7 --priority ignore";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut container = self.image.to_change(&self.undo, session)?;
        container.set_priority(self.keyslot, self.priority)?;
        let change = Change::KeyslotPriority {
            keyslot: self.keyslot,
            priority: self.priority,
        };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }
}
