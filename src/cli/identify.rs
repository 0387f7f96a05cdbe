//! `luksmith identify`: what an image looks like. A guess, for a person; no other command uses it.

use luksmith::vet;
use luksmith_formats::json::json;

use super::Session;
use super::error::{CommandError, Kind};
use super::inspect::UntrustedImage;

/// Guess what an image might be, for a person who wonders
///
/// This is a guess from a few bytes, and whoever made the image chose them: a raw image can look like anything. Once you know what
/// it should be, `luksmith inspect --format` says whether it is. With --json: {"image", "guess": true, "looks_like": [{"format",
/// "offset"}]}.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: UntrustedImage,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  luksmith identify upload.img
  luksmith identify upload.img --json";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let name = self.image.name();
        let image = self.image.open()?;
        let found = vet::identify(&*image.backend)
            .map_err(|error| CommandError::new(Kind::Storage, error).about(&name))?;
        let output = &session.output;
        if self.json {
            let found: Vec<_> = found
                .iter()
                .map(|seen| json!({"format": seen.format, "offset": seen.offset}))
                .collect();
            output.json(&json!({
                "image": name,
                "guess": true,
                "looks_like": found,
            }));
            return Ok(());
        }
        if found.is_empty() {
            output.line(format_args!(
                "{name}: looks like nothing known; it may be raw (a guess)"
            ));
        }
        for seen in found {
            output.line(format_args!(
                "{name}: looks like {} at byte {} (a guess)",
                seen.format, seen.offset
            ));
        }
        Ok(())
    }
}
