//! `luksmith key change`: replaces a passphrase.

use luksmith::container::{NewKeyslot, Which};
use luksmith::task::outcome::{Change, Changed};

use crate::cli::Session;
use crate::cli::args::{ImageArgs, NewKeyArgs, PbkdfArgs, UndoArgs, UnlockArgs};
use crate::cli::error::CommandError;
use crate::cli::open::unlock;
use crate::cli::passphrase::KeySource;

/// Change a passphrase
///
/// The new keyslot is on stable storage before the old one is removed. LUKS1 stores the new
/// passphrase in another keyslot if one is free, as cryptsetup does.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// Change keyslot N [default: the one that the passphrase opens]
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: Option<u32>,

    #[command(flatten)]
    unlock: UnlockArgs,

    #[command(flatten)]
    new_key: NewKeyArgs,

    #[command(flatten)]
    pbkdf: PbkdfArgs,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith key change disk.img
  luksmith key change disk.img --keyslot 1 --new-key-file new.key
  printf 'old\\nnew\\n' | luksmith key change disk.img --key stdin --new-key stdin";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut container = self
            .image
            .to_unlock_and_change(&self.unlock, &self.undo, session)?;
        let label = self.image.image.to_string();

        let old = KeySource::to_unlock(&self.unlock)?;
        let source = KeySource::of_new(&self.new_key, Some(&old))?;
        if self.unlock.token.is_given() {
            let message = "the token would no longer open its keyslot with another passphrase";
            return Err(CommandError::parameters(message)
                .hint("`luksmith key add` adds a keyslot, and `luksmith key remove` removes one"));
        }
        let which = self.keyslot.map_or(Which::Any, Which::Slot);
        let cost = self.pbkdf.get();
        cost.check(&container)?;
        let early = source.early(session, &label)?;
        let unlocked = unlock(session, &container, &old, which, &label)?;
        let old_slot = unlocked.slot();
        let passphrase = match early {
            Some(passphrase) => passphrase,
            None => {
                let volume = container.volume_name();
                source.fresh_of(session, &label, volume, self.new_key.force_weak)?
            }
        };

        let kdf = cost.of_another_keyslot(&container, unlocked.key().as_bytes().len(), session)?;
        let new = NewKeyslot::new(&passphrase, kdf);
        let slot = container.change_keyslot(&unlocked, &new, session.signals.interrupt())?;
        let change = Change::KeyslotChanged {
            keyslot: slot,
            old_keyslot: old_slot,
        };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }
}
