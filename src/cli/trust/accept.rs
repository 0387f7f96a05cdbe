//! `luksmith trust accept`: pins what another program has changed.

use luksmith::task::outcome::{Done, Trusted};
use luksmith::task::trust::Volume;

use super::volume::VolumeArgs;
use crate::cli::Session;
use crate::cli::error::CommandError;
use crate::cli::output;

/// Pin the header of a pinned volume as it is now, after another program has changed it
///
/// The differences are shown first. A passphrase has to open the volume, and its volume key has to
/// be the pinned one. An old header that the storage hands out opens too: accept a lower sequence
/// number only if you have restored that header yourself.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, mut_arg("trust", |arg| arg.required(true)))]
pub(crate) struct Args {
    #[command(flatten)]
    volume: VolumeArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith trust accept disk.img --trust pins
  luksmith trust accept moved/disk.img --trust pins    also a place that has changed";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let dir = self.volume.image.trust.needed()?;
        let image = self.volume.image.get().without_trust();
        let container = self.volume.open(&image, session)?;
        let volume = Volume::new(&image, &dir, &container);
        let about = |error: luksmith::task::Error| error.about(&image.location);
        let (before, differences) = volume.compare(&container).map_err(about)?;
        let pin = if differences.is_empty() {
            before
        } else {
            for difference in &differences {
                output::warning(format_args!("{}: {difference}", image.location));
            }
            let unlocked = self.volume.unlock(&image, &container, session)?;
            let accepted = volume.accept(&before, &container, &unlocked);
            accepted.map_err(about)?
        };
        let done = Trusted::new(&image.location, Done::Accepted, pin, differences);
        session.done(&done);
        Ok(())
    }
}
