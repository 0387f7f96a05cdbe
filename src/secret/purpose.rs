//! What a source reads a secret for.

use crate::Interrupt;

/// What a secret is read for: the label of the question, and whether it is asked twice.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Purpose<'a> {
    /// Whether the secret exists or is being set.
    pub what: Wanted,
    /// What the secret opens, in words for the person who is asked: an image, a keyslot.
    pub label: &'a str,
    /// Stops a source that waits.
    pub interrupt: &'a Interrupt,
}

impl<'a> Purpose<'a> {
    /// A secret that exists.
    #[must_use]
    pub fn unlock(label: &'a str, interrupt: &'a Interrupt) -> Self {
        Self {
            what: Wanted::Unlock,
            label,
            interrupt,
        }
    }

    /// A secret that is being set.
    #[must_use]
    pub fn new_secret(label: &'a str, interrupt: &'a Interrupt) -> Self {
        Self {
            what: Wanted::New,
            label,
            interrupt,
        }
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
