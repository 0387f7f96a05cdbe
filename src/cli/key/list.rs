//! `luksmith key list`: lists the keyslots in use.

use luksmith_formats::json::json;

use crate::cli::Session;
use crate::cli::args::ImageArgs;
use crate::cli::error::CommandError;
use crate::cli::info::keyslots;
use crate::cli::open::ReadArgs;

/// List the keyslots
///
/// With --json: {"keyslots": [{"keyslot", "bound", "priority", "key_bits", "kdf": {"type", "hash",
/// "iterations"} or {"type", "passes", "memory" (bytes), "threads"}, "area": {"offset", "size",
/// "cipher", "key_bits"}, "af": {"hash", "stripes"}, "not_supported": null or text}]}
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
  luksmith key list disk.img
  luksmith key list disk.img --json | jq '.keyslots[].kdf.type'";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let container = self.image.get().open_to_read(
            self.read.options(),
            luksmith_formats::limits::Limits::default(),
            session,
        )?;
        let slots = container.keyslots();
        if self.json {
            session
                .output
                .json(&json!({ "keyslots": keyslots::json(&slots) }));
        } else {
            session.output.lines(keyslots::table(&slots));
        }
        Ok(())
    }
}
