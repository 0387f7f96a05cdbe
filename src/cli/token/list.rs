//! `luksmith token list`: lists the tokens.

use luksmith::task::outcome;
use luksmith_formats::json::Object;

use super::shown;
use crate::cli::Session;
use crate::cli::args::ImageArgs;
use crate::cli::error::CommandError;
use crate::cli::open::ReadArgs;

/// List the tokens
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    read: ReadArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith token list disk.img
  luksmith token list disk.img --json";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let container = self.image.to_look(&self.read, session)?;
        if session.json {
            let mut members = Object::new();
            outcome::image(&mut members, &self.image.image);
            members.insert("tokens", outcome::tokens(&container));
            session.output.json(&members.into());
        } else {
            session
                .output
                .lines(shown::table(&container).unwrap_or_else(|| "no tokens".to_owned()));
        }
        Ok(())
    }
}
