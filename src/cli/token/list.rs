//! `luksmith token list`: lists the tokens.

use luksmith_formats::json::json;
use luksmith_formats::limits::Limits;

use super::shown;
use crate::cli::Session;
use crate::cli::args::ImageArgs;
use crate::cli::error::CommandError;
use crate::cli::open::ReadArgs;

/// List the tokens
///
/// With --json: {"tokens": [{"token", "type", "keyslots"}]}
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    read: ReadArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  luksmith token list disk.img
  luksmith token list disk.img --json";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let container =
            self.image
                .get()
                .open_to_read(self.read.options(), Limits::default(), session)?;
        if self.json {
            session
                .output
                .json(&json!({ "tokens": shown::json(&container) }));
        } else {
            session
                .output
                .line(shown::table(&container).unwrap_or_else(|| "no tokens".to_owned()));
        }
        Ok(())
    }
}
