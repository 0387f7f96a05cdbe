//! Why a token gave no passphrase.

use std::io;

use luksmith_formats::text::Shown;

use super::malformed::MalformedToken;
#[cfg(feature = "tpm2")]
use super::tpm2::Tpm2Error;
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
    /// The TPM did not unseal the passphrase.
    #[cfg(feature = "tpm2")]
    #[error(transparent)]
    Tpm2(#[from] Tpm2Error),
    /// A Tang server did not help.
    #[cfg(feature = "tang")]
    #[error(transparent)]
    Clevis(#[from] super::clevis::ClevisError),
    /// The secret that the token needs was not read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// This build cannot use tokens of this type.
    #[error(transparent)]
    MissingFeature(#[from] MissingFeature),
}

impl TokenError {
    /// Whether a person who typed what the token asks for may do better the next time.
    #[must_use]
    pub fn may_be_mistyped(&self) -> bool {
        match self {
            Self::NotRecoveryKey => true,
            #[cfg(feature = "tpm2")]
            Self::Tpm2(error) => matches!(error, Tpm2Error::WrongPin),
            _ => false,
        }
    }

    /// Whether another token of the header would do no better. A TPM counts each wrong PIN.
    pub(crate) fn ends_all(&self) -> bool {
        match self {
            Self::Secret(_) | Self::NotRecoveryKey | Self::MissingFeature(_) => true,
            #[cfg(feature = "tpm2")]
            Self::Tpm2(error) => !error.is_of_the_token(),
            #[cfg(feature = "tang")]
            Self::Clevis(error) => matches!(error, super::clevis::ClevisError::Secret(_)),
            _ => false,
        }
    }
}
