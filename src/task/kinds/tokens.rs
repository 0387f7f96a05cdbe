//! Errors of tokens, and of opening with them.

use super::secret::secret;
use super::{kinds, unlock};
use crate::task::Kind;
use crate::task::tokens::OpenByTokenError;
use crate::tokens::TokenError;
#[cfg(feature = "tang")]
use crate::tokens::clevis::ClevisError;

#[cfg(feature = "tang")]
kinds! {
    ClevisError => clevis,
}

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
        #[cfg(feature = "tang")]
        TokenError::Clevis(error) => clevis(error),
        TokenError::MissingFeature(_) => Kind::Unsupported,
    }
}

#[cfg(feature = "tang")]
fn clevis(error: &ClevisError) -> Kind {
    match error {
        ClevisError::Malformed(_) => Kind::Damaged,
        ClevisError::ForeignServer { .. } => Kind::Permission,
        ClevisError::Pin(_) => Kind::Unsupported,
        ClevisError::Shares { source, .. } => clevis(source),
        ClevisError::Url => Kind::Parameters,
        ClevisError::Unreachable { .. }
        | ClevisError::Status { .. }
        | ClevisError::Answer { .. }
        | ClevisError::Authorities(_) => Kind::Storage,
        ClevisError::NotDecrypted => Kind::WrongPassphrase,
        ClevisError::Secret(error) => secret(error),
    }
}

fn open_by_token(error: &OpenByTokenError) -> Kind {
    match error {
        OpenByTokenError::NoChoice
        | OpenByTokenError::Luks1
        | OpenByTokenError::NoSuchToken(_)
        | OpenByTokenError::NoneOfType { .. }
        | OpenByTokenError::UnknownType { .. }
        | OpenByTokenError::NoKeyslot { .. } => Kind::Parameters,
        OpenByTokenError::WrongPassphrase { .. } => Kind::WrongPassphrase,
        OpenByTokenError::Token { source, .. } => token(source),
        OpenByTokenError::Unlock { source, .. } => unlock(source),
    }
}
