//! Which volumes are served: opens them, and unlocks them with the passphrases of their sources.

use luksmith::export::{Discard, Export};
use luksmith::task::export_text::ExportText;
use luksmith::task::exports::{Locked, Wanted};
use luksmith::task::reencrypt::served::Reencryptable;
use luksmith_formats::limits::Limits;

use crate::cli::Session;
use crate::cli::args::{Choice, KeyArgs, RemoteArgs, TokenArgs};
use crate::cli::error::CommandError;
use crate::cli::notes::note_slow;
use crate::cli::open::unlock;
use crate::cli::passphrase::KeySource;

/// What a discard (TRIM) of a client does.
pub(in crate::cli) const DISCARDS: &[Choice<Discard>] = &[
    ("deny", "The discard is refused", Discard::Deny),
    (
        "zeroes",
        "The discard writes encrypted zeroes",
        Discard::Zeroes,
    ),
    (
        "pass",
        "The discard reaches the storage, which then knows which sectors are free",
        Discard::Pass,
    ),
];

/// A volume that is to be served, and where its passphrase comes from.
pub(in crate::cli) struct Chosen {
    pub(in crate::cli) wanted: Wanted,
    pub(in crate::cli) key: KeySource,
}

impl Chosen {
    /// The export of `--export`: its own options, and for missing ones the arguments, which are for
    /// all exports. One that states its key uses only the tokens that it states.
    pub(in crate::cli) fn of(
        text: &ExportText,
        (key, tokens): (&KeyArgs, &TokenArgs),
        remote: &RemoteArgs,
        read_only: bool,
        discard: Discard,
    ) -> Result<Self, CommandError> {
        let about = |error: CommandError| error.about(format!("--export {}", text.name));
        let wanted = text.wanted(remote.get(), discard);
        let mut wanted = wanted.map_err(|error| about(error.into()))?;
        wanted.read_only |= read_only;
        let key = match &text.key {
            Some(source) => KeySource::named("--key", source),
            None => KeySource::of(key),
        };
        let key = key.map_err(about)?;
        let key = match (&*text.tokens, &text.key) {
            ([], Some(_)) => key,
            ([], None) => key.with_tokens(tokens),
            (own, _) => key.with_tokens(&tokens.choosing(own)),
        };
        Ok(Self { wanted, key })
    }

    /// Opens the storage and reads the header.
    pub(in crate::cli) fn open(
        self,
        session: &Session,
        limits: Limits,
    ) -> Result<Opened, CommandError> {
        let locked = self.wanted.open(limits, session)?;
        let key = self.key;
        Ok(Opened { locked, key })
    }
}

/// A volume that is open and locked, and where its passphrase comes from.
pub(in crate::cli) struct Opened {
    locked: Locked,
    key: KeySource,
}

impl Opened {
    /// Asks for the passphrase and unlocks the volume. If it is being reencrypted, also returns
    /// what goes on with that, and with `steered` also what can begin that.
    pub(in crate::cli) fn unlock(
        self,
        session: &Session,
        steered: bool,
    ) -> Result<(Export, Option<Reencryptable>), CommandError> {
        let locked = self.locked;
        let (which, label) = (
            locked.wanted().which,
            locked.wanted().image.location.to_string(),
        );
        let unlocked = unlock(session, locked.container(), &self.key, which, &label)?;
        if let Ok(segment) = locked.container().data_segment() {
            note_slow(segment.cipher);
        }
        Ok(locked.into_export(&unlocked, steered)?)
    }
}
