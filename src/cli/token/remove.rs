//! `luksmith token remove`: removes a token.

use luksmith::task::outcome::{Change, Changed};

use crate::cli::Session;
use crate::cli::args::{ImageArgs, UndoArgs};
use crate::cli::error::CommandError;

/// Remove a token; its keyslots stay
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// The token
    #[arg(long, value_name = "N")]
    token_id: u32,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith token remove disk.img --token-id 0";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut container = self.image.to_change(&self.undo, session)?;
        container.remove_token(self.token_id)?;
        let change = Change::TokenRemoved {
            token: self.token_id,
        };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }
}
