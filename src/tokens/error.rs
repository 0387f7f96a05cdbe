//! Why a token gave no passphrase.

use std::io;

use luksmith_formats::text::Shown;

use crate::MissingFeature;
use crate::secret::SecretError;

/// Why a token gave no passphrase. Text from the header is shown with escapes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The type is none that this library uses.
    #[error("tokens of type {} are not known; the types are {known}", Shown(.kind))]
    UnknownType {
        /// The type, which a header may state.
        kind: String,
        /// The types that this library uses.
        known: String,
    },
    /// The JSON of the token is not as its type needs it.
    #[error(transparent)]
    Malformed(#[from] MalformedToken),
    /// The text is no recovery key.
    #[error("not a recovery key: it has 8 groups of 8 letters of cbdefghijklnrtuv")]
    NotRecoveryKey,
    /// The key that the token names is not in the keyrings, or cannot be read.
    #[error("the key {} of the kernel's keyrings cannot be read", Shown(.description))]
    Keyring {
        /// The description of the key, which the header states.
        description: String,
        /// The error of the operating system: `ENOKEY` if there is no such key.
        source: io::Error,
    },
    /// The secret that the token needs was not read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// This build cannot use tokens of this type.
    #[error(transparent)]
    MissingFeature(#[from] MissingFeature),
}

/// A token whose JSON is not as its type needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is malformed: {member} {cause}")]
#[non_exhaustive]
pub struct MalformedToken {
    /// The member that is wrong.
    pub member: &'static str,
    /// What is wrong with it.
    pub cause: &'static str,
}

impl MalformedToken {
    pub(super) fn new(member: &'static str, cause: &'static str) -> Self {
        Self { member, cause }
    }
}
