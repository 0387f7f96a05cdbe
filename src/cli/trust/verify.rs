//! `luksmith trust verify`: compares a volume with its pin.

use luksmith::task::outcome::{Done, Trusted};
use luksmith::task::trust::{Volume, tagging};

use super::volume::VolumeArgs;
use crate::cli::Session;
use crate::cli::error::{CommandError, Kind};

/// Compare a volume with its pin
///
/// Exit code 7 if it is not as it is pinned. Without a source of a passphrase only the header is
/// compared; with one also the volume key, and all of the data if it has tags.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, mut_arg("trust", |arg| arg.required(true)))]
pub(crate) struct Args {
    #[command(flatten)]
    volume: VolumeArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith trust verify disk.img --trust pins
  luksmith trust verify disk.img --trust pins --key-file disk.key";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let VolumeArgs {
            image,
            read,
            unlock,
        } = &self.volume;
        let (dir, image) = (image.trust.needed()?, image.get());
        let container = self.volume.open(&image, session)?;
        let mut tags = None;
        if unlock.key.is_given() || unlock.token.is_given() {
            let unlocked = self.volume.unlock(&image, &container, session)?;
            if tagging::are_there(&container, &dir)? {
                let limits = unlock.limits.limits();
                let opened = image.open_data_to_read(read.options(), limits, session)?;
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
