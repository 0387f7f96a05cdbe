//! `luksmith key list`: lists the keyslots in use.

use luksmith::task::outcome;
use luksmith_formats::json::Object;

use crate::cli::Session;
use crate::cli::args::ImageArgs;
use crate::cli::error::CommandError;
use crate::cli::info::keyslots;
use crate::cli::open::ReadArgs;

/// List the keyslots
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
  luksmith key list disk.img
  luksmith key list disk.img --json | jq '.keyslots[].kdf.type'";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let container = self.image.to_look(&self.read, session)?;
        let slots = container.keyslots();
        if session.json {
            let mut members = Object::new();
            outcome::image(&mut members, &self.image.image);
            members.insert("keyslots", outcome::keyslots(&slots));
            session.output.json(&members.into());
        } else {
            session.output.lines(keyslots::table(&slots));
        }
        Ok(())
    }
}
