//! `luksmith trust verify`: compares a volume with its pin.

use luksmith::task::outcome::{Done, Trusted};
use luksmith::task::trust::Volume;
use luksmith::task::trust::tagging::{self, Verified};

use super::volume::VolumeArgs;
use crate::cli::Session;
use crate::cli::error::{CommandError, Kind};
use crate::cli::output;

/// How many offsets of altered blocks the message names. The JSON has more of them.
const SHOWN: usize = 8;

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
        let has_tags = tagging::are_there(&container, &dir)?;
        if unlock.key.is_given() || unlock.token.is_given() {
            let unlocked = self.volume.unlock(&image, &container, session)?;
            if has_tags {
                let limits = unlock.limits.limits();
                let opened = image.open_data_to_read(read.options(), limits, session)?;
                tags = tagging::verify((&opened.1, &opened.0), &unlocked, session)?;
            }
        } else if has_tags {
            output::warning(format_args!(
                "{}: the data is not compared with its tags: that needs a source of the passphrase",
                image.location
            ));
        }
        let (pin, differences) = Volume::new(&image, &dir, &container).compare(&container)?;
        let done = Trusted::new(&image.location, Done::Compared, pin, differences);
        let altered = tags.as_ref().map_or(0, |tags| tags.altered);
        let places = tags.as_ref().map(places).unwrap_or_default();
        session.done(&done.tags(tags));
        match altered {
            0 => Ok(()),
            _ => {
                let message = match altered {
                    1 => format!("the block of data at byte {places} is not as it was written"),
                    _ => format!(
                        "{altered} blocks of data are not as they were written, at the bytes {places}"
                    ),
                };
                let error = CommandError::new(Kind::NotTrusted, message);
                Err(error.about(&image.location).hint(
                    "each of them is an error until it is written again; restore it from a backup",
                ))
            }
        }
    }
}

/// The first offsets on the storage at which data is not as it was written.
fn places(found: &Verified) -> String {
    let shown = found.altered_at.iter().take(SHOWN).map(u64::to_string);
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if found.altered > SHOWN as u64 {
        text.push_str(", …");
    }
    text
}
