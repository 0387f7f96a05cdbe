//! `luksmith token add`: makes a token that names a key of the kernel's keyrings.

use luksmith::container::{Container, KeyslotError};
use luksmith::task::outcome::{Change, Changed};
use luksmith::tokens::keyring_token;
use luksmith_formats::json::Value;

use crate::cli::Session;
use crate::cli::args::{ImageArgs, UndoArgs};
use crate::cli::error::CommandError;

/// Add a token that names a key of the kernel's keyrings
///
/// The key, of type user, has the passphrase of the keyslots. `luksmith … --token-type
/// luks2-keyring` and cryptsetup then open the volume with it. The tokens of other types are made
/// together with their keyslots by `luksmith key add`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// The description of the key, which is its name
    #[arg(long, value_name = "TEXT")]
    key_description: String,

    /// The keyslot of which the key has the passphrase [default: all that open the volume]
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: Option<u32>,

    /// The number of the token [default: the first free one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..32))]
    token_id: Option<u32>,

    /// Replace the token with that number
    #[arg(long, requires = "token_id")]
    token_replace: bool,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith token add disk.img --key-description disk:key
  keyctl padd user disk:key @s < key
  luksmith key test disk.img --token-type luks2-keyring";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut token = keyring_token(&self.key_description).map_err(|error| {
            CommandError::parameters(format!("--key-description {}", error.cause))
        })?;
        let mut container = self.image.to_change(&self.undo, session)?;
        let keyslots = self.keyslots(&container)?;
        let names = keyslots.iter().map(|slot| Value::from(slot.to_string()));
        if let Some(list) = token.get_mut("keyslots").and_then(Value::as_array_mut) {
            list.extend(names);
        }
        let token = container.add_token(self.token_id, token, self.token_replace)?;
        let change = Change::TokenAdded { token, keyslots };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }

    fn keyslots(&self, container: &Container) -> Result<Vec<u32>, CommandError> {
        let slots = container.keyslots();
        match self.keyslot {
            Some(wanted) if slots.iter().any(|slot| slot.slot == wanted) => Ok(vec![wanted]),
            Some(wanted) => Err(KeyslotError::NotInUse(wanted).into()),
            None => {
                let bound = slots.iter().filter(|slot| slot.bound);
                Ok(bound.map(|slot| slot.slot).collect())
            }
        }
    }
}
