//! `luksmith header erase`: destroys all keyslots.

use luksmith::task::outcome::{Change, Changed};

use crate::cli::Session;
use crate::cli::args::{ImageArgs, UndoArgs};
use crate::cli::error::CommandError;
use crate::cli::force::{Force, confirm, only};

/// Destroy all keyslots, so that the data can no longer be read
///
/// After that, only a header backup or the volume key opens the volume.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// Go on without asking: erase
    #[arg(long, value_name = "WHAT", value_parser = only(&[(Force::Erase, "destroy all keyslots")]))]
    force: Vec<Force>,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith header erase disk.img
  luksmith header erase disk.img --force erase";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut container = self.image.to_change(&self.undo, session)?;
        let slots = container.keyslots();
        let removed: Vec<_> = slots.iter().map(|there| there.slot).collect();
        let count = removed.len();
        let loss = format!(
            "{} of {} (volume {}) would be destroyed: the data is lost, unless there is a header \
             backup or the volume key",
            match count {
                1 => "the only keyslot".to_owned(),
                _ => format!("all {count} keyslots"),
            },
            self.image.header_location(),
            container.uuid()
        );
        confirm(&self.force, Force::Erase, &loss)?;
        container.erase()?;
        let change = Change::HeaderErased { removed };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }
}
