//! `luksmith trust verify`: compares a volume with its pin.

use luksmith::container::Which;
use luksmith::task::outcome::{Done, Trusted};
use luksmith::task::trust::Volume;

use crate::cli::Session;
use crate::cli::args::{ImageArgs, UnlockArgs};
use crate::cli::error::CommandError;
use crate::cli::open::{ReadArgs, unlock};
use crate::cli::passphrase::KeySource;

/// Compare a volume with its pin
///
/// Exit code 7 if it is not as it is pinned. Without a source of a passphrase only the header is
/// compared; with one also the volume key.
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
        if self.unlock.key.is_given() || self.unlock.token.is_given() {
            let source = KeySource::to_unlock(&self.unlock)?;
            let label = image.location.to_string();
            unlock(session, &container, &source, Which::Any, &label)?;
        }
        let (pin, differences) = Volume::new(&image, &dir, &container).compare(&container)?;
        let done = Trusted::new(&image.location, Done::Compared, pin, differences);
        session.done(&done);
        Ok(())
    }
}
