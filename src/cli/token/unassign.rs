//! `luksmith token unassign`: removes a keyslot from a token.

use luksmith::container::Header;
use luksmith::task::outcome::{Change, Changed};

use crate::cli::Session;
use crate::cli::args::{ImageArgs, UndoArgs};
use crate::cli::error::CommandError;

/// Remove a keyslot from the list of a token
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// The token
    #[arg(long, value_name = "N")]
    token_id: u32,

    /// The keyslot
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: u32,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith token unassign disk.img --token-id 0 --keyslot 1";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut container = self.image.to_change(&self.undo, session)?;
        let spoken_of = match container.header() {
            Header::Luks1(_) => None,
            Header::Luks2(header) => header.metadata.tokens().get(&self.token_id),
        };
        if spoken_of.is_some_and(|token| !token.keyslots.contains(&self.keyslot)) {
            let message = format!(
                "token {} does not list keyslot {}",
                self.token_id, self.keyslot
            );
            return Err(CommandError::parameters(message)
                .hint("`luksmith token list IMAGE` shows the tokens"));
        }
        container.assign_token(self.token_id, self.keyslot, false)?;
        let change = Change::TokenUnassigned {
            token: self.token_id,
            keyslot: self.keyslot,
        };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }
}
