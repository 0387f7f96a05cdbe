//! `luksmith key priority`: sets the order in which keyslots are tried.

use clap::ValueEnum;
use luksmith::task::outcome::{Change, Changed};
use luksmith_formats::luks2;

use crate::cli::Session;
use crate::cli::args::{ImageArgs, UndoArgs};
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
    #[arg(long, value_name = "WHEN")]
    priority: Priority,

    #[command(flatten)]
    undo: UndoArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Priority {
    /// before all others
    Prefer,
    /// after the preferred ones
    Normal,
    /// only if --keyslot names it
    Ignore,
}

const EXAMPLES: &str = "\
Examples:
  luksmith key priority disk.img --keyslot 1 --priority prefer
  luksmith key priority disk.img --keyslot 7 --priority ignore";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut container = self.image.get().open_to_write(
            self.undo.path(),
            luksmith_formats::limits::Limits::default(),
            session,
        )?;
        let priority = match self.priority {
            Priority::Prefer => luks2::Priority::Prefer,
            Priority::Normal => luks2::Priority::Normal,
            Priority::Ignore => luks2::Priority::Ignore,
        };
        container.set_priority(self.keyslot, priority)?;
        let change = Change::KeyslotPriority {
            keyslot: self.keyslot,
            priority,
        };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }
}
