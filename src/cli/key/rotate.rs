//! `luksmith key rotate`: replaces the passphrase that a key store has.

use luksmith::task::key_rotate;
use luksmith::task::outcome::{Change, Changed};

use crate::cli::Session;
use crate::cli::args::{ImageArgs, LimitArgs, PbkdfArgs, UndoArgs};
use crate::cli::error::CommandError;
use crate::cli::passphrase;

/// Replace the passphrase that a key store has
///
/// The new passphrase has 256 random bits. The old keyslot is removed only when the key store has
/// returned the new passphrase, and it has opened the volume. Until then the store keeps both
/// passphrases under REFERENCE.luksmith-new and REFERENCE.luksmith-old. If the command is
/// interrupted, the next run completes it.
///
/// The value must be the passphrase of this volume only: a second volume with the same passphrase
/// would not open any more.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// The present passphrase, which is replaced there: helper:NAME:REFERENCE
    #[arg(long, value_name = "HELPER")]
    secret: String,

    #[command(flatten)]
    limits: LimitArgs,

    #[command(flatten)]
    pbkdf: PbkdfArgs,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith key rotate disk.img --secret helper:vault:hosts/vm1
  luksmith create disk.img --size 10G --key generate:helper:vault:hosts/vm1   makes the first one
  luksmith key change disk.img --new-key generate:helper:vault:hosts/vm1      moves a passphrase there";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let store = passphrase::key_store("--secret", &self.secret)?;
        let limits = self.limits.limits();
        let mut container = self
            .image
            .get()
            .open_to_write(self.undo.path(), limits, session)?;
        let cost = self.pbkdf.get();
        cost.check(&container)?;
        let rotated = key_rotate::rotate(&mut container, &store, &cost, session)
            .map_err(|error| error.about(&self.image.image))?;
        let change = Change::PassphraseRotated {
            key_store: store.reference().to_string(),
            rotated,
        };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }
}
