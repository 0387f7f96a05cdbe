//! Hints after a failure to open with a token.

use std::error::Error;

use luksmith::task::tokens::OpenByTokenError;
use luksmith::tokens::TokenError;
use rustix::io::Errno;

use super::row::{Hint, Row};

fn none(_: &(dyn Error + 'static)) -> Hint {
    None
}

const LIST: &str = "`luksmith token list IMAGE` shows the tokens";

hints! {
    else none;

    TokenError {
        TokenError::UnknownType { .. } => LIST,
        TokenError::Malformed(_) => "`luksmith token export IMAGE --token-id N` shows the token",
        TokenError::NotRecoveryKey => "--key SOURCE names where the recovery key is",
        TokenError::Keyring { source, .. } if Errno::from_io_error(source) == Some(Errno::ACCESS) =>
            "`keyctl link @u @s` lets this session read the keys of the user",
        TokenError::Keyring { source, .. } if Errno::from_io_error(source) == Some(Errno::NOKEY) =>
            "`keyctl padd user DESCRIPTION @s` adds it, with the passphrase from stdin",
    }

    OpenByTokenError {
        OpenByTokenError::NoSuchToken(_)
        | OpenByTokenError::NoneOfType { .. }
        | OpenByTokenError::NoKeyslot { .. } => LIST,
        OpenByTokenError::UnknownType { .. } =>
            "the program that made the token opens it; --key SOURCE needs no token",
        OpenByTokenError::Token { source, .. } => hint(source),
    }
}
