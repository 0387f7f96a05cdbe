//! The types of tokens that this library uses.

use core::fmt;
use core::str::FromStr;

use super::error::TokenError;
use super::token::{Context, Token};
use super::{keyring, recovery, sealed};
use crate::secret::Passphrase;

/// A type of token that this library uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenType {
    /// `luks2-keyring` of cryptsetup: the passphrase is a key of the kernel's keyrings.
    Keyring,
    /// `systemd-recovery`: a person has the passphrase, which systemd-cryptenroll has made.
    Recovery,
    /// `systemd-tpm2`: a TPM 2.0 has sealed the passphrase.
    Tpm2,
    /// `clevis`: Tang servers help to find the passphrase. Needs the feature `tang`.
    Clevis,
}

impl TokenType {
    /// All types.
    pub const ALL: &'static [Self] = &[Self::Keyring, Self::Recovery, Self::Tpm2, Self::Clevis];

    /// The member `type` of such a token.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Keyring => keyring::TYPE,
            Self::Recovery => recovery::TYPE,
            Self::Tpm2 => sealed::TYPE,
            Self::Clevis => "clevis",
        }
    }

    /// The names of all types, for people.
    #[must_use]
    pub fn names() -> String {
        let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
        names.join(", ")
    }

    /// The passphrase of the keyslots of a token of this type.
    ///
    /// # Errors
    /// [`TokenError`]. A token that is malformed causes no request, and reads no source.
    pub fn passphrase(
        self,
        token: &Token<'_>,
        context: &Context<'_>,
    ) -> Result<Passphrase, TokenError> {
        match self {
            Self::Keyring => keyring::passphrase(token),
            Self::Recovery => recovery::passphrase(context),
            Self::Tpm2 => sealed::passphrase(token, context),
            #[cfg(feature = "tang")]
            Self::Clevis => Ok(super::clevis::passphrase(token, context)?),
            #[cfg(not(feature = "tang"))]
            Self::Clevis => Err(crate::MissingFeature::new("a token of clevis", "tang").into()),
        }
    }
}

impl fmt::Display for TokenType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TokenType {
    type Err = TokenError;

    fn from_str(name: &str) -> Result<Self, TokenError> {
        let found = Self::ALL.iter().find(|kind| kind.name() == name);
        found.copied().ok_or_else(|| TokenError::UnknownType {
            kind: name.to_owned(),
            known: Self::names(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_found_by_its_name() {
        for kind in TokenType::ALL {
            assert_eq!(kind.name().parse::<TokenType>().ok(), Some(*kind));
        }
        for other in ["", "luks2-keyring ", "Clevis", "systemd-fido2"] {
            assert!(matches!(
                other.parse::<TokenType>(),
                Err(TokenError::UnknownType { kind, .. }) if kind == other
            ));
        }
    }
}
