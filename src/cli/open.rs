//! Unlocks a container with a passphrase that the user gives.

use luksmith::backend::file::OpenOptions;
use luksmith::container::{Container, UnlockError, Unlocked, Which};
use luksmith::secret::{Passphrase, SecretSource};
use luksmith::task::open::ImageFormat;
use luksmith::task::tokens::{self, Choice, OpenByTokenError};
use luksmith::task::{Watch as _, Work, Working};
use luksmith::tokens::TokenOptions;
use luksmith_formats::limits::Limits;
use luksmith_formats::luks2::Priority;

use super::Session;
use super::args::{ImageArgs, KeysArgs, UndoArgs, UnlockArgs};
use super::error::CommandError;
use super::output;
use super::passphrase::{KeySource, ask_again};

/// Options of commands that only read an image.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ReadArgs {
    /// Read the image even if another program writes to it; a half-written change may be read
    #[arg(long)]
    pub(crate) force_share: bool,
}

impl ReadArgs {
    pub(crate) fn options(&self) -> OpenOptions {
        OpenOptions::new().force_share(self.force_share)
    }
}

impl ImageArgs {
    /// Opens the header for a command that only shows it. Its limits on key derivations are the
    /// default ones.
    pub(crate) fn to_look(
        &self,
        read: &ReadArgs,
        session: &Session,
    ) -> Result<Container, CommandError> {
        let options = read.options();
        Ok(self
            .get()
            .open_to_look(options, Limits::default(), session)?)
    }

    /// Opens the header for a change that needs no passphrase.
    pub(crate) fn to_change(
        &self,
        undo: &UndoArgs,
        session: &Session,
    ) -> Result<Container, CommandError> {
        let undo = undo.path();
        Ok(self.get().open_to_write(undo, Limits::default(), session)?)
    }

    /// Opens the header for a change that needs a passphrase.
    pub(crate) fn to_unlock_and_change(
        &self,
        unlock: &UnlockArgs,
        undo: &UndoArgs,
        session: &Session,
    ) -> Result<Container, CommandError> {
        let (undo, limits) = (undo.path(), unlock.limits.limits());
        Ok(self.get().open_to_write(undo, limits, session)?)
    }
}

/// Refuses a qcow2 image, for commands that know only the raw format.
pub(crate) fn refuse_qcow2(image: &ImageArgs, command: &str) -> Result<(), CommandError> {
    if image.format == ImageFormat::Raw {
        return Ok(());
    }
    let message = format!("{command} is not possible in a qcow2 image");
    Err(CommandError::parameters(message))
}

/// Reads the passphrase and unlocks. A passphrase that is typed may be wrong twice.
pub(crate) fn unlock(
    session: &Session,
    container: &Container,
    source: &KeySource,
    which: Which,
    label: &str,
) -> Result<Unlocked, CommandError> {
    unlock_and_keep(session, container, source, which, label).map(|opened| opened.unlocked)
}

/// What a passphrase opened.
pub(crate) struct Opened {
    pub(crate) unlocked: Unlocked,
    pub(crate) passphrase: Passphrase,
    /// The token that gave the passphrase.
    pub(crate) token: Option<u32>,
}

/// As [`unlock`], and returns the passphrase too.
pub(crate) fn unlock_and_keep(
    session: &Session,
    container: &Container,
    source: &KeySource,
    which: Which,
    label: &str,
) -> Result<Opened, CommandError> {
    if source.tokens().is_given() {
        return by_token(session, container, source, which, label);
    }
    // Do not ask for a passphrase that cannot open anything.
    let slots = container.keyslots();
    let hopeless = match which {
        Which::Any if !slots.iter().any(|keyslot| keyslot.bound) => Some(UnlockError::NoKeyslots),
        Which::Any
            if !slots
                .iter()
                .any(|slot| slot.bound && slot.priority != Priority::Ignore) =>
        {
            Some(UnlockError::OnlyIgnored)
        }
        Which::Slot(slot) if !slots.iter().any(|keyslot| keyslot.slot == slot) => {
            Some(UnlockError::NoSuchKeyslot(slot))
        }
        _ => None,
    };
    if let Some(error) = hopeless {
        return Err(CommandError::from(error).about(label));
    }
    let mut left = source.tries();
    loop {
        left -= 1;
        let passphrase = source.existing_of(session, label, container.volume_name())?;
        match derive(session, container, &passphrase, which) {
            Err(UnlockError::WrongPassphrase) if left > 0 => {
                ask_again(UnlockError::WrongPassphrase.into());
            }
            outcome => {
                let ignored = which == Which::Any
                    && matches!(outcome, Err(UnlockError::WrongPassphrase))
                    && slots
                        .iter()
                        .any(|keyslot| keyslot.priority == Priority::Ignore);
                let hint = ignored.then(|| {
                    "keyslots of priority ignore were not tried: --keyslot N tries one".to_owned()
                });
                let newline = match &outcome {
                    Err(UnlockError::WrongPassphrase) => {
                        // Another program may have changed the keyslots since the header was read.
                        container.check_unchanged()?;
                        match newline_hint(session, container, &passphrase, which)? {
                            None if source.is_one_line() => Some(TYPED.to_owned()),
                            hint => hint,
                        }
                    }
                    _ => None,
                };
                return match outcome {
                    Ok(unlocked) => Ok(Opened {
                        unlocked,
                        passphrase,
                        token: None,
                    }),
                    Err(error) => {
                        let error = CommandError::from(error).about(label);
                        Err(error.hint_if(newline).hint_if(hint))
                    }
                };
            }
        }
    }
}

/// Unlocks with a token of the header.
fn by_token(
    session: &Session,
    container: &Container,
    source: &KeySource,
    which: Which,
    label: &str,
) -> Result<Opened, CommandError> {
    let opened = with_tokens(container, source, label, |choices, options| {
        let from = (source as &dyn SecretSource, label);
        tokens::open(container, choices, which, from, options, session)
    })?;
    Ok(Opened {
        unlocked: opened.unlocked,
        passphrase: opened.passphrase,
        token: Some(opened.token),
    })
}

/// Reads the passphrases of all sources, those of tokens of this header too.
pub(crate) fn passphrases(
    session: &Session,
    container: &Container,
    keys: &KeysArgs,
    label: &str,
) -> Result<Vec<Passphrase>, CommandError> {
    let mut all = Vec::new();
    for source in &KeySource::of_each(keys)? {
        if source.tokens().is_given() {
            all.extend(with_tokens(
                container,
                source,
                label,
                |choices, options| {
                    let from = (source as &dyn SecretSource, label);
                    tokens::passphrases(container, choices, from, options, session)
                },
            )?);
        } else {
            all.push(source.existing(session, label)?);
        }
    }
    Ok(all)
}

/// Uses the tokens that a source may. What a person types for them may be wrong twice.
fn with_tokens<T>(
    container: &Container,
    source: &KeySource,
    label: &str,
    mut used: impl FnMut(&[Choice], &TokenOptions) -> Result<T, OpenByTokenError>,
) -> Result<T, CommandError> {
    let (choices, options) = (source.tokens().choices(), source.tokens().options());
    let mut left = source.tries();
    loop {
        left -= 1;
        match used(&choices, &options) {
            Ok(result) => return Ok(result),
            Err(error) if left > 0 && error.may_be_mistyped() => ask_again(error.into()),
            Err(error) => {
                container.check_unchanged()?;
                return Err(CommandError::from(error).about(label));
            }
        }
    }
}

/// The hint for a line that opens nothing. To try it with a newline would take a derivation for
/// each keyslot after every mistyped passphrase.
const TYPED: &str = "a key file that ends with a newline is a passphrase with that newline, which \
                     cannot be typed: --key-file PATH reads it whole";

/// Tries a passphrase, with a spinner while the keys are derived.
fn derive(
    session: &Session,
    container: &Container,
    passphrase: &Passphrase,
    which: Which,
) -> Result<Unlocked, UnlockError> {
    let _working = Working::begin(session, Work::Derive, None);
    container.unlock(passphrase, which, session.interrupt())
}

/// The hint about a newline at the end of the passphrase. It tries the passphrase without the
/// newline, which takes a derivation for each keyslot.
fn newline_hint(
    session: &Session,
    container: &Container,
    passphrase: &Passphrase,
    which: Which,
) -> Result<Option<String>, CommandError> {
    let Some(stripped) = passphrase.without_newline()? else {
        return Ok(None);
    };
    output::note("the key ends with a newline; trying it without");
    let hint = match derive(session, container, &stripped, which) {
        Ok(_) => {
            "without the newline at its end, the key opens: leave it out, or read only the first N \
             bytes of a file with --key-file and --keyfile-size N"
        }
        Err(UnlockError::WrongPassphrase) => {
            "without the newline at its end it does not open either"
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Some(hint.to_owned()))
}
