//! Why a key store did not give or take a secret.

use std::path::PathBuf;

use crate::secret::{HelperError, SecretError};

/// Why a key store did not give or take a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyStoreError {
    /// No folder of helpers has one of this name.
    #[error("there is no helper key-{name} in {}", listed(places))]
    NotFound {
        /// The name of the helper.
        name: String,
        /// The folders.
        places: Vec<PathBuf>,
    },
    /// The helper is not run, or failed.
    #[error(transparent)]
    Helper(HelperError),
    /// The store has no value under this reference.
    #[error("the key store has no value under this reference")]
    NoValue,
    /// The store has a value already where a new one was to be stored, or its value is not the one
    /// any more that was to be replaced.
    #[error("the key store has another value under this reference, which is not replaced")]
    Conflict,
    /// A passphrase would be generated under a reference that has a value.
    #[error("the key store has a value under this reference already")]
    Present,
    /// The store does not permit it.
    #[error("the key store does not permit it")]
    Denied,
    /// The store cannot be reached at present.
    #[error("the key store cannot be reached at present")]
    Unreachable,
    /// The helper does not accept the reference, or does not have this verb.
    #[error("the helper does not accept this reference, or cannot {verb}")]
    NotAccepted {
        /// What it was asked to do.
        verb: &'static str,
    },
    /// The helper gave no secret, although it ended as if it had.
    #[error("the helper gave no secret on descriptor 3")]
    Nothing,
    /// The helper printed something on stdout that is not a revision.
    #[error("the helper printed something else than a revision on stdout")]
    NotRevision,
    /// The store returns another value than it was given.
    #[error("the key store returns another value than it was given")]
    Altered,
    /// A value was stored, and cannot be read again.
    #[error("the value was stored, and cannot be read back")]
    NotReadBack(#[source] Box<Self>),
    /// The secret cannot be held or made, is too long, or the interrupt was set.
    #[error(transparent)]
    Secret(SecretError),
}

fn listed(places: &[PathBuf]) -> String {
    let places = places.iter().map(|place| place.display().to_string());
    places.collect::<Vec<_>>().join(", ")
}

impl KeyStoreError {
    /// The failure of the source with this text. An interrupt stays one.
    pub(crate) fn of(self, from: String) -> SecretError {
        match self {
            Self::Secret(SecretError::Interrupted) => SecretError::Interrupted,
            error => SecretError::Scheme {
                from,
                source: Box::new(error),
            },
        }
    }
}

impl From<SecretError> for KeyStoreError {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Helper { source, .. } => Self::Helper(source),
            other => Self::Secret(other),
        }
    }
}
