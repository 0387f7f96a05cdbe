//! `luksmith trust verify`: compares a volume with its pin.

use luksmith::container::Which;
use luksmith::task::outcome::{Done, Trusted};
use luksmith::task::trust::{Volume, tagging};

use crate::cli::Session;
use crate::cli::args::{ImageArgs, UnlockArgs};
use crate::cli::error::{CommandError, Kind};
use crate::cli::open::{ReadArgs, unlock};
use crate::cli::passphrase::KeySource;

/// Compare a volume with its pin
///
/// Exit code 7 if it is not as it is pinned. Without a source of a passphrase only the header is
/// compared; with one also the volume key, and all of the data if it has tags.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, mut_arg("trust", |arg| arg.required(true)))]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    unlock: UnlockArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith trust verify disk.img --trust pins
  luksmith trust verify disk.img --trust pins --key-file disk.key";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let dir = self.image.trust.needed()?;
        let image = self.image.get();
        let limits = self.unlock.limits.limits();
        let container = image.open_to_look(self.read.options(), limits, session)?;
        let mut tags = None;
        if self.unlock.key.is_given() || self.unlock.token.is_given() {
            let source = KeySource::to_unlock(&self.unlock)?;
            let label = image.location.to_string();
            let unlocked = unlock(session, &container, &source, Which::Any, &label)?;
            if tagging::are_there(&container, &dir)? {
                let opened = image.open_data_to_read(self.read.options(), limits, session)?;
                tags = tagging::verify((&opened.1, &opened.0), &unlocked, session)?;
            }
        }
        let (pin, differences) = Volume::new(&image, &dir, &container).compare(&container)?;
        let done = Trusted::new(&image.location, Done::Compared, pin, differences);
        let altered = tags.as_ref().map_or(0, |tags| tags.altered);
        session.done(&done.tags(tags));
        match altered {
            0 => Ok(()),
            _ => {
                let message = match altered {
                    1 => "a block of data is not as it was written".to_owned(),
                    _ => format!("{altered} blocks of data are not as they were written"),
                };
                let error = CommandError::new(Kind::NotTrusted, message);
                Err(error.about(&image.location).hint(
                    "each of them is an error until it is written again; restore it from a backup",
                ))
            }
        }
    }
}
