//! `luksmith trust accept`: pins what another program has changed.

use luksmith::task::outcome::{Done, Trusted};
use luksmith::task::trust::Volume;
use luksmith_formats::trust::pin::Difference;

use super::volume::VolumeArgs;
use crate::cli::Session;
use crate::cli::error::CommandError;
use crate::cli::force::{Force, confirm, only};
use crate::cli::output;

/// Pin the header of a pinned volume as it is now, after another program has changed it
///
/// The differences are shown first. A passphrase has to open the volume, and its volume key has to
/// be the pinned one. An old header that the storage hands out opens too, so a lower sequence
/// number is only accepted with --force rollback.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, mut_arg("trust", |arg| arg.required(true)))]
pub(crate) struct Args {
    #[command(flatten)]
    volume: VolumeArgs,

    /// Go on without asking: rollback
    #[arg(long, value_name = "WHAT", help_heading = None::<&str>, value_parser = only(&[(Force::Rollback, "pin a header that is older than the pinned one: you have restored it yourself")]))]
    force: Vec<Force>,
}

const EXAMPLES: &str = "\
Examples:
  luksmith trust accept disk.img --trust pins
  luksmith trust accept moved/disk.img --trust pins    also a place that has changed
  luksmith trust accept disk.img --trust pins --force rollback    you have restored an old header";

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
            if let Some(loss) = rolled_back(&differences) {
                let loss = format!("{}: {loss}", image.location);
                confirm(&self.force, Force::Rollback, &loss)?;
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

/// What an old header would bring back, if the header is one.
fn rolled_back(differences: &[Difference]) -> Option<String> {
    differences.iter().find_map(|difference| match difference {
        Difference::RolledBack { pinned, found } => Some(format!(
            "its header has the sequence number {found}, and {pinned} is pinned: passphrases that \
             were removed since would open the volume again"
        )),
        _ => None,
    })
}
