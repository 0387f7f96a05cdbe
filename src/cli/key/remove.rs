//! `luksmith key remove`: removes a passphrase.

use luksmith::container::{Container, KeyslotError, Which};
use luksmith::task::outcome::{Change, Changed};

use crate::cli::Session;
use crate::cli::args::{ImageArgs, UndoArgs, UnlockArgs};
use crate::cli::error::{CommandError, Kind};
use crate::cli::force::{Force, confirm, only};
use crate::cli::open::unlock;
use crate::cli::passphrase::KeySource;

/// Remove a keyslot
///
/// Asks for the passphrase to remove. With --keyslot N it asks for a passphrase that remains, as
/// proof that the volume can still be opened.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// Remove keyslot N
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: Option<u32>,

    /// Go on without asking: last-keyslot, although nothing opens the volume afterwards; unproven,
    /// without a passphrase that remains
    #[arg(long, value_name = "WHAT", value_parser = only(&[Force::LastKeyslot, Force::Unproven]))]
    force: Vec<Force>,

    #[command(flatten)]
    unlock: UnlockArgs,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith key remove disk.img                                asks for the passphrase to remove
  luksmith key remove disk.img --keyslot 2                    asks for one that remains
  luksmith key remove disk.img --keyslot 2 --force unproven   asks for nothing";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut container = self
            .image
            .to_unlock_and_change(&self.unlock, &self.undo, session)?;
        let label = self.image.image.to_string();
        let source = KeySource::of(&self.unlock.key)?;

        // If any passphrase opens the last keyslot, the user is asked before the passphrase.
        let bound: Vec<_> = (container.keyslots().iter())
            .filter(|keyslot| keyslot.bound)
            .map(|keyslot| keyslot.slot)
            .collect();
        let only = match bound[..] {
            [slot] if self.keyslot.is_none() => Some(slot),
            _ => None,
        };
        if let Some(slot) = only {
            self.agree_to_last(slot, &label)?;
        }
        let (slot, mark) = match self.keyslot {
            Some(slot) => (slot, container.keyslot_mark(slot)?),
            None => {
                let unlocked = unlock(session, &container, &source, Which::Any, &label)?;
                let slot = unlocked.slot().ok_or_else(|| {
                    CommandError::new(
                        Kind::WrongPassphrase,
                        "no keyslot opens with this passphrase",
                    )
                })?;
                (slot, unlocked.mark().cloned())
            }
        };
        let mark = mark.ok_or(KeyslotError::NotInUse(slot))?;
        let last = is_last(&container, slot);
        if last && only.is_none() {
            self.agree_to_last(slot, &label)?;
        } else if !last && self.keyslot.is_some() && !self.force.contains(&Force::Unproven) {
            self.prove(session, &container, &source, slot, &label)?;
        }
        container.remove_marked_keyslot(slot, &mark, last)?;

        let remaining = container
            .keyslots()
            .iter()
            .filter(|keyslot| keyslot.bound)
            .count();
        let change = Change::KeyslotRemoved {
            keyslot: slot,
            remaining,
        };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }

    fn agree_to_last(&self, slot: u32, label: &str) -> Result<(), CommandError> {
        let loss = format!(
            "keyslot {slot} is the last one that opens {label}: without it the data is lost, \
             unless there is a header backup or the volume key"
        );
        confirm(&self.force, Force::LastKeyslot, &loss)
    }

    /// Proves that a keyslot that remains can be opened, before another one is removed.
    fn prove(
        &self,
        session: &Session,
        container: &Container,
        source: &KeySource,
        slot: u32,
        label: &str,
    ) -> Result<(), CommandError> {
        let what = format!("a keyslot of {label} that remains");
        let hint = "--force unproven removes it without a passphrase that remains";
        let unlocked = unlock(session, container, source, Which::Any, &what)
            .map_err(|error| error.hint(hint))?;
        if unlocked.slot() == Some(slot) {
            let message = format!(
                "this is the passphrase of keyslot {slot} itself, and proves nothing about the \
                 others"
            );
            return Err(CommandError::new(Kind::Permission, message).hint(hint));
        }
        Ok(())
    }
}

fn is_last(container: &Container, slot: u32) -> bool {
    let bound = container
        .keyslots()
        .iter()
        .filter(|keyslot| keyslot.bound)
        .map(|keyslot| keyslot.slot)
        .collect::<Vec<_>>();
    bound == [slot]
}
