//! `luksmith key add`: adds a passphrase.

use std::path::{Path, PathBuf};

use luksmith::container::{Container, Header, KeyslotError, NewKeyslot, Version, Which};
use luksmith::secret::VolumeKey;
use luksmith::task::outcome::{Change, Changed};

use super::enrol::EnrolArgs;
use crate::cli::Session;
use crate::cli::args::{ImageArgs, LocalFile, NewKeyArgs, PbkdfArgs, UndoArgs, UnlockArgs};
use crate::cli::error::CommandError;
use crate::cli::open::unlock;
use crate::cli::passphrase::{KeySource, volume_key_file};

/// Add a keyslot with another passphrase
///
/// Asks for a passphrase that opens the volume, then for the new one.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// Store the new passphrase in keyslot N [default: the first free one]
    #[arg(
        short = 'S',
        long,
        alias = "key-slot",
        alias = "new-key-slot",
        value_name = "N"
    )]
    keyslot: Option<u32>,

    /// Authorize the change with the volume key in FILE instead of a passphrase
    #[arg(long, alias = "master-key-file", value_name = "FILE", conflicts_with_all = ["key", "key_file", "token", "token_type"], value_parser = LocalFile)]
    volume_key_file: Option<PathBuf>,

    /// Make an unbound keyslot: it holds a random key that does not open the volume (LUKS2)
    #[arg(long, requires = "key_size", conflicts_with_all = ["key", "key_file", "token", "token_type"])]
    unbound: bool,

    /// The size of the unbound key in bits
    #[arg(short = 's', long, value_name = "BITS", requires = "unbound", value_parser = clap::value_parser!(u32).range(8..=4096))]
    key_size: Option<u32>,

    #[command(flatten)]
    unlock: UnlockArgs,

    #[command(flatten)]
    new_key: NewKeyArgs,

    #[command(flatten)]
    enrol: EnrolArgs,

    #[command(flatten)]
    pbkdf: PbkdfArgs,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith key add disk.img                                      asks for an existing and a new passphrase
  luksmith key add disk.img --new-key-file backup.key            a key file, all of its bytes
  luksmith key add disk.img --key-file old.key --keyslot 3
  luksmith key add disk.img --tpm2 --tpm2-pcrs 7                 the TPM of this machine opens it
  luksmith key add disk.img --unbound --key-size 256             a key for other uses";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut container = self
            .image
            .to_unlock_and_change(&self.unlock, &self.undo, session)?;
        let name = self.image.header_location();
        let refused = |error: KeyslotError| CommandError::from(error).about(name);
        if self.enrol.is_given() && container.version() == Version::Luks1 {
            return Err(CommandError::parameters("LUKS1 has no tokens").about(name));
        }
        self.enrol.check(session)?;
        container.check_free(self.keyslot).map_err(refused)?;
        let cost = self.pbkdf.get();
        cost.check(&container)?;
        let interrupt = session.signals.interrupt();
        let label = self.image.image.to_string();

        let old = KeySource::to_unlock(&self.unlock)?;
        let by_passphrase = !self.unbound && self.volume_key_file.is_none();
        let beside = by_passphrase.then_some(&old);
        let is_asked = !self.enrol.is_given();
        let source = KeySource::of_new(&self.new_key, beside.filter(|_| is_asked))?;
        let pin = self.enrol.pin(beside)?;
        let name = format!("a new keyslot of {label}");
        let made = self.enrol.make(session, &self.unlock.token, pin.as_ref())?;
        let early = match &made {
            Some(_) => None,
            None => source.early(session, &name)?,
        };
        let unlocked = match &self.volume_key_file {
            _ if self.unbound => None,
            Some(path) => {
                Some(container.unlock_with_key(volume_key_file(session, path)?, interrupt)?)
            }
            None => Some(unlock(session, &container, &old, Which::Any, &label)?),
        };
        let asked;
        let passphrase = match (&made, early) {
            (Some(made), _) => &made.passphrase,
            (None, Some(early)) => {
                asked = early;
                &asked
            }
            (None, None) => {
                let volume = container.volume_name();
                asked = source.fresh_of(session, &name, volume, self.new_key.force_weak)?;
                &asked
            }
        };

        let key_size = unlocked
            .as_ref()
            .map_or(64, |unlocked| unlocked.key().as_bytes().len());
        let kdf = match &made {
            Some(made) => made.cost,
            None => cost.of_another_keyslot(&container, key_size, session)?,
        };
        let token = made.as_ref().map(|made| made.token.clone());
        let new = NewKeyslot::new(passphrase, kdf);
        let new = new.slot(self.keyslot).token(token);
        if let Some(made) = &made {
            self.enrol.write(made, session)?;
        }
        let slot = match (&unlocked, self.key_size) {
            (Some(unlocked), _) => {
                let added = container.add_keyslot(unlocked, &new, interrupt);
                added.map_err(|error| self.enrol.not_added(error.into()))?
            }
            (None, bits) => {
                let bits = bits.unwrap_or_default();
                if bits % 8 != 0 {
                    return Err(CommandError::parameters(
                        "--key-size: not a multiple of 8 bits",
                    ));
                }
                container.add_unbound_keyslot(
                    VolumeKey::random((bits / 8) as usize)?,
                    &new,
                    interrupt,
                )?
            }
        };
        if let Some(made) = &made {
            self.enrol.show(made).map_err(|error| {
                error.hint(format!(
                    "the keyslot is there, and its key is lost: `luksmith key remove IMAGE \
                     --keyslot {slot}` removes it"
                ))
            })?;
        }
        let change = Change::KeyslotAdded {
            keyslot: slot,
            bound: unlocked.is_some(),
            token: made.and_then(|_| token_of(&container, slot)),
        };
        let file = self.enrol.file().unwrap_or(Path::new(""));
        session.wrote(file, &Changed::new(&self.image.image, change));
        Ok(())
    }
}

/// The token of a new keyslot.
fn token_of(container: &Container, slot: u32) -> Option<u32> {
    let Header::Luks2(header) = container.header() else {
        return None;
    };
    let mut tokens = header.metadata.tokens().iter();
    let found = tokens.find(|(_, token)| token.keyslots.contains(&slot));
    found.map(|(id, _)| *id)
}
