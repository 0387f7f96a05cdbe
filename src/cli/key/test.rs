//! `luksmith key test`: tests a passphrase.

use luksmith::container::Which;
use luksmith::task::outcome::{Change, Changed};

use crate::cli::Session;
use crate::cli::args::{ImageArgs, UnlockArgs};
use crate::cli::error::CommandError;
use crate::cli::open::{ReadArgs, unlock_and_keep};
use crate::cli::passphrase::KeySource;

/// Test whether a passphrase opens the volume
///
/// Exit code 0 if it does, 2 if not.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    read: ReadArgs,

    /// Try only keyslot N, regardless of its priority
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: Option<u32>,

    #[command(flatten)]
    unlock: UnlockArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith key test disk.img
  luksmith key test disk.img --keyslot 1 --key-file backup.key && echo the backup key works";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let container = self.image.get().open_to_look(
            self.read.options(),
            self.unlock.limits.limits(),
            session,
        )?;
        let source = KeySource::to_unlock(&self.unlock)?;
        let which = self.keyslot.map_or(Which::Any, Which::Slot);
        let opened = unlock_and_keep(
            session,
            &container,
            &source,
            which,
            &self.image.image.to_string(),
        )?;
        let change = Change::KeyslotOpens {
            keyslot: opened.unlocked.slot().unwrap_or_default(),
            bound: opened.unlocked.is_volume_key(),
            token: opened.token,
        };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }
}
