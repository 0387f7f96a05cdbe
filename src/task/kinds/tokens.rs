//! Errors of tokens, and of opening with them.

use super::secret::secret;
use super::{kinds, unlock};
use crate::task::Kind;
use crate::task::tokens::OpenByTokenError;
use crate::tokens::TokenError;

kinds! {
    TokenError => token,
    OpenByTokenError => open_by_token,
}

fn token(error: &TokenError) -> Kind {
    match error {
        TokenError::UnknownType { .. } => Kind::Parameters,
        TokenError::Malformed(_) => Kind::Damaged,
        TokenError::NotRecoveryKey => Kind::WrongPassphrase,
        TokenError::Keyring { source, .. } => match source.raw_os_error() {
            Some(libc::ENOKEY | libc::EKEYEXPIRED | libc::EKEYREVOKED) => Kind::WrongPassphrase,
            _ => Kind::of_io(source),
        },
        #[cfg(feature = "tpm2")]
        TokenError::Tpm2(error) => super::tpm2::tpm2(error),
        TokenError::Secret(error) => secret(error),
        TokenError::MissingFeature(_) => Kind::Unsupported,
    }
}

fn open_by_token(error: &OpenByTokenError) -> Kind {
    match error {
        OpenByTokenError::Luks1
        | OpenByTokenError::NoSuchToken(_)
        | OpenByTokenError::NoneOfType { .. }
        | OpenByTokenError::UnknownType { .. }
        | OpenByTokenError::NoKeyslot { .. } => Kind::Parameters,
        OpenByTokenError::WrongPassphrase { .. } => Kind::WrongPassphrase,
        OpenByTokenError::Token { source, .. } => token(source),
        OpenByTokenError::Unlock { source, .. } => unlock(source),
    }
}
