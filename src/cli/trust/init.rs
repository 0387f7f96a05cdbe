//! `luksmith trust init`: pins a volume.

use luksmith::container::Which;
use luksmith::task::outcome::{Done, Trusted};
use luksmith::task::trust::Volume;
use luksmith::trust::TrustDir;

use crate::cli::Session;
use crate::cli::args::{ImageArgs, UnlockArgs};
use crate::cli::error::CommandError;
use crate::cli::open::{ReadArgs, unlock};
use crate::cli::passphrase::KeySource;

/// Pin the header of a volume as it is now
///
/// DIR is made with mode 0700 if it does not exist. The pin keeps hashes of the header and of its
/// key material, a fingerprint of the volume key, and the place of the volume as it is named here;
/// nothing in it is secret. The header has to be genuine now.
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
  luksmith trust init disk.img --trust pins
  luksmith trust init s3://bucket/vm1 --trust /var/lib/luksmith/trust --key-file vm1.key";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let dir = TrustDir::make(self.image.trust.needed()?.path())?;
        let image = self.image.get().without_trust();
        let limits = self.unlock.limits.limits();
        let container = image.open_to_look(self.read.options(), limits, session)?;
        let volume = Volume::new(&image, &dir, &container);
        volume.check_init()?;
        let (source, label) = (
            KeySource::to_unlock(&self.unlock)?,
            image.location.to_string(),
        );
        let unlocked = unlock(session, &container, &source, Which::Any, &label)?;
        let pin = volume.init(&container, &unlocked)?;
        session.done(&Trusted::new(
            &image.location,
            Done::Pinned,
            pin,
            Vec::new(),
        ));
        Ok(())
    }
}
