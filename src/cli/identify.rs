//! `luksmith identify`: guesses the format of an image, for a person. No other command uses the
//! guess.

use luksmith::container::Remains;
use luksmith::task::outcome;
use luksmith::vet;
use luksmith_formats::Limits;
use luksmith_formats::json::{Object, json};

use super::Session;
use super::error::{CommandError, Kind};
use super::inspect::UntrustedImage;

/// Guess the format of an image
///
/// This is a guess from a few bytes, which the author of the image chose: a raw image can have any
/// signature. If you know the format, `luksmith inspect --format` checks the image. What is left of
/// an overwritten LUKS header is named too. With --json: {"image", "guess": true, "looks_like":
/// [{"format", "offset"}], "remains": what is left of a header, or null}.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: UntrustedImage,
}

const EXAMPLES: &str = "\
Examples:
  luksmith identify upload.img
  luksmith identify upload.img --json";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let name = self.image.name();
        let image = self.image.open(session)?;
        let failed = |error| CommandError::new(Kind::Storage, error).about(&name);
        let found = vet::identify(&*image.backend).map_err(failed)?;
        let remains = Remains::find(&*image.backend, &Limits::default()).map_err(failed)?;
        let output = &session.output;
        if session.json {
            let found: Vec<_> = found
                .iter()
                .map(|seen| json!({"format": seen.format, "offset": seen.offset}))
                .collect();
            let mut members = Object::new();
            outcome::image(&mut members, &self.image.image);
            members.insert("guess", true);
            members.insert("looks_like", found);
            members.insert("remains", remains.map(|remains| remains.to_string()));
            output.json(&members.into());
            return Ok(());
        }
        if let Some(remains) = &remains {
            output.line(format_args!("{name}: {remains} (a guess)"));
        } else if found.is_empty() {
            output.line(format_args!(
                "{name}: has no known signature; it may be raw (a guess)"
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
