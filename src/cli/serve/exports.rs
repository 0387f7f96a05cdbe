//! Which volumes are served: opens them, and unlocks them with the passphrases of their sources.

use luksmith::export::{Discard, Export};
use luksmith::task::export_text::ExportText;
use luksmith::task::exports::{Locked, Wanted};
use luksmith_formats::limits::Limits;

use crate::cli::Session;
use crate::cli::args::{Choice, KeyArgs, RemoteArgs};
use crate::cli::error::CommandError;
use crate::cli::notes::note_slow;
use crate::cli::open::unlock;
use crate::cli::passphrase::KeySource;

/// What a discard (TRIM) of a client does.
pub(super) const DISCARDS: &[Choice<Discard>] = &[
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
pub(super) struct Chosen {
    pub(super) wanted: Wanted,
    pub(super) key: KeySource,
}

impl Chosen {
    /// The export of `--export`: its own options, and for missing ones the arguments, which are for
    /// all exports.
    pub(super) fn of(
        text: &ExportText,
        key: &KeyArgs,
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
        Ok(Self { wanted, key })
    }

    /// Opens the storage and reads the header.
    pub(super) fn open(self, session: &Session, limits: Limits) -> Result<Opened, CommandError> {
        let locked = self.wanted.open(limits, session)?;
        let key = self.key;
        Ok(Opened { locked, key })
    }
}

/// A volume that is open and locked, and where its passphrase comes from.
pub(super) struct Opened {
    locked: Locked,
    key: KeySource,
}

impl Opened {
    /// Asks for the passphrase and unlocks the volume.
    pub(super) fn unlock(self, session: &Session) -> Result<Export, CommandError> {
        let locked = self.locked;
        let (which, label) = (
            locked.wanted().which,
            locked.wanted().image.location.to_string(),
        );
        let unlocked = unlock(session, locked.container(), &self.key, which, &label)?;
        if let Ok(segment) = locked.container().data_segment() {
            note_slow(segment.cipher);
        }
        Ok(locked.export(&unlocked)?)
    }
}
