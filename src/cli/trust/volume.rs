//! The options that name a volume and its pin.

use luksmith::container::{Container, Unlocked, Which};
use luksmith::task::open::Image;

use crate::cli::Session;
use crate::cli::args::{ImageArgs, UnlockArgs};
use crate::cli::error::CommandError;
use crate::cli::open::{ReadArgs, unlock};
use crate::cli::passphrase::KeySource;

/// The volume whose pin is made, compared or changed.
#[derive(Debug, clap::Args)]
pub(super) struct VolumeArgs {
    #[command(flatten)]
    pub(super) image: ImageArgs,

    #[command(flatten)]
    pub(super) read: ReadArgs,

    #[command(flatten)]
    pub(super) unlock: UnlockArgs,
}

impl VolumeArgs {
    pub(super) fn open(&self, image: &Image, session: &Session) -> Result<Container, CommandError> {
        let limits = self.unlock.limits.limits();
        Ok(image.open_to_look(self.read.options(), limits, session)?)
    }

    pub(super) fn unlock(
        &self,
        image: &Image,
        container: &Container,
        session: &Session,
    ) -> Result<Unlocked, CommandError> {
        let source = KeySource::to_unlock(&self.unlock)?;
        let label = image.location.to_string();
        unlock(session, container, &source, Which::Any, &label)
    }
}
