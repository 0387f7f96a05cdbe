//! What a source reads a secret for.

use crate::Interrupt;

/// What a secret is read for: the label of the question, and whether it is asked twice.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Purpose<'a> {
    /// Whether the secret exists or is being set.
    pub what: Wanted,
    /// What the person who is asked calls the secret: a passphrase, a PIN.
    pub name: &'a str,
    /// What the secret opens, in words for the person who is asked: an image, a keyslot.
    pub label: &'a str,
    /// The volume that the secret opens, if it is known: it may not be made yet.
    pub volume: Option<VolumeName<'a>>,
    /// Stops a source that waits.
    pub interrupt: &'a Interrupt,
}

impl<'a> Purpose<'a> {
    /// A secret that exists.
    #[must_use]
    pub fn unlock(label: &'a str, interrupt: &'a Interrupt) -> Self {
        Self {
            what: Wanted::Unlock,
            name: PASSPHRASE,
            label,
            volume: None,
            interrupt,
        }
    }

    /// A secret that is being set.
    #[must_use]
    pub fn new_secret(label: &'a str, interrupt: &'a Interrupt) -> Self {
        Self {
            what: Wanted::New,
            name: PASSPHRASE,
            label,
            volume: None,
            interrupt,
        }
    }

    /// The same for a secret that has another name than passphrase.
    #[must_use]
    pub fn named(mut self, name: &'a str) -> Self {
        self.name = name;
        self
    }

    /// The same for a secret of this volume.
    #[must_use]
    pub fn of(mut self, volume: VolumeName<'a>) -> Self {
        self.volume = Some(volume);
        self
    }
}

/// The name of most secrets.
const PASSPHRASE: &str = "passphrase";

/// How a header names its volume. A stranger may have written the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeName<'a> {
    /// The UUID, as it is written in the header.
    pub uuid: &'a str,
    /// The label. LUKS1 has none.
    pub label: Option<&'a str>,
}

impl<'a> VolumeName<'a> {
    /// A volume with this UUID, and this label if it is not empty.
    #[must_use]
    pub fn new(uuid: &'a str, label: &'a str) -> Self {
        let label = Some(label).filter(|label| !label.is_empty());
        Self { uuid, label }
    }
}

/// Whether a secret exists or is being set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The secret exists, and opens something.
    Unlock,
    /// The secret is being set: a person is asked twice, and the secret cannot be empty.
    New,
}
