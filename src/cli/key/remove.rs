//! `luksmith key remove`: removes a passphrase.

use luksmith::container::{Container, Which};
use luksmith::task::keyslots::{Obstacle, to_remove};
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
/// proof that the volume can still be opened. If several keyslots have the same passphrase, one of
/// them is removed: `luksmith key test` says whether the passphrase still opens another one.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// Remove keyslot N
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: Option<u32>,

    /// Go on without asking about WHAT
    #[arg(long, value_name = "WHAT", value_parser = only(&[
        (Force::LastKeyslot, "remove the last keyslot: nothing opens the volume afterwards"),
        (Force::Unproven, "remove keyslot N without a passphrase that opens another one"),
    ]))]
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
        let source = KeySource::to_unlock(&self.unlock)?;
        let (slot, mark, obstacle) = match self.keyslot {
            Some(slot) => {
                let (mark, obstacle) = to_remove(&container, slot, None)?;
                (slot, mark, obstacle)
            }
            None => {
                let unlocked = unlock(session, &container, &source, Which::Any, &label)?;
                let opened = unlocked.slot().zip(unlocked.mark().cloned());
                let (slot, mark) = opened.ok_or_else(|| {
                    CommandError::new(
                        Kind::WrongPassphrase,
                        "no keyslot opens with this passphrase",
                    )
                })?;
                // Its passphrase was given to remove it.
                let (_, obstacle) = to_remove(&container, slot, None)?;
                let obstacle = obstacle.filter(|obstacle| *obstacle == Obstacle::Last);
                (slot, mark, obstacle)
            }
        };
        match obstacle {
            Some(last @ Obstacle::Last) => {
                confirm(&self.force, Force::LastKeyslot, &last.of(slot, &label))?;
            }
            Some(Obstacle::Unproven) if !self.force.contains(&Force::Unproven) => {
                self.prove(session, &container, &source, slot, &label)?;
            }
            _ => {}
        }
        let last = obstacle == Some(Obstacle::Last);
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
