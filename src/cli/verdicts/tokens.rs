//! Hints after a failure to open with a token.

use std::error::Error;

use luksmith::task::tokens::OpenByTokenError;
use luksmith::tokens::TokenError;
use luksmith::tokens::clevis::ClevisError;
use luksmith::tokens::tpm2::Tpm2Error;
use rustix::io::Errno;

use super::row::{Hint, Row};

const LIST: &str = "`luksmith token list IMAGE` shows the tokens";

hints! {
    else super::trust::hint;

    TokenError {
        TokenError::UnknownType { .. } => LIST,
        TokenError::Malformed(_) => "`luksmith token export IMAGE --token-id N` shows the token",
        TokenError::Clevis(error) => hint(error),
        TokenError::NotRecoveryKey => "--key SOURCE names where the recovery key is",
        TokenError::Keyring { source, .. } if Errno::from_io_error(source) == Some(Errno::ACCESS) =>
            "`keyctl link @u @s` lets this session read the keys of the user",
        TokenError::Keyring { source, .. } if Errno::from_io_error(source) == Some(Errno::NOKEY) =>
            "`keyctl padd user DESCRIPTION @s` adds it, with the passphrase from stdin",
        TokenError::Tpm2(error) => hint(error),
    }

    Tpm2Error {
        Tpm2Error::NoDevice { .. } =>
            "--tpm2-device names the TPM: a device such as /dev/tpmrm0, or unix:SOCKET of swtpm",
        Tpm2Error::Open { source, .. } if Errno::from_io_error(source) == Some(Errno::ACCESS) =>
            "on most systems the group tss may use the TPM",
        Tpm2Error::OtherTpm | Tpm2Error::Pcrs { .. } | Tpm2Error::Policy | Tpm2Error::NoKey(_) =>
            "--key SOURCE without --token opens other keyslots; `key add IMAGE --tpm2` enrols again",
        Tpm2Error::NeedsPin | Tpm2Error::WrongPin => "--key SOURCE names where the PIN is",
        Tpm2Error::Lockout =>
            "`tpm2_dictionarylockout --clear-lockout` ends it; --key SOURCE without --token opens others",
        Tpm2Error::KeyPassword => "--key SOURCE without --token opens other keyslots",
        Tpm2Error::Unsupported(_) => "systemd-cryptsetup opens it",
        Tpm2Error::NoPcrs { .. } => "--tpm2-pcrs takes PCRs that `tpm2_pcrread sha256` shows",
        Tpm2Error::NoMemory => "/dev/tpmrm0 manages the memory of the TPM for all programs",
        Tpm2Error::BadPin => "printf '%s' PIN writes a file without a newline at its end",
    }

    ClevisError {
        ClevisError::ForeignServer { .. } =>
            "--tang-url URL permits it: use it only if you know that server",
        ClevisError::Shares { source, .. } => hint(&**source),
        ClevisError::Status { status: 404, .. } =>
            "the server may have rotated its keys and deleted the old ones",
        ClevisError::Unreachable { .. } =>
            "--key SOURCE without --token opens the volume with a passphrase",
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
