//! Errors of a reencryption.

use super::{commit, create, crypt, format, io, kdf, keyslot, kinds, secret, unlock, volume};
use crate::container::ReencryptionError;
use crate::reencrypt::{ReencryptError, RoomError};
use crate::task::Kind;

kinds! {
    ReencryptionError => header,
    ReencryptError => reencrypt,
    RoomError => room,
}

fn header(error: &ReencryptionError) -> Kind {
    match error {
        ReencryptionError::Luks1 | ReencryptionError::JournalOfPlaintext => Kind::Unsupported,
        ReencryptionError::NotPending => Kind::Parameters,
        ReencryptionError::Format(error) => format(error),
        ReencryptionError::Unverified => Kind::Damaged,
        ReencryptionError::OldKey | ReencryptionError::NewKey => Kind::WrongPassphrase,
        ReencryptionError::NoRoom { .. }
        | ReencryptionError::NoNumber { .. }
        | ReencryptionError::NoSpaceInHeader(_) => Kind::NoSpace,
        ReencryptionError::Unlock(error) => unlock(error),
        ReencryptionError::Create(error) => create(error),
        ReencryptionError::Keyslot(error) => keyslot(error),
        ReencryptionError::Volume(error) => volume(error),
        ReencryptionError::Kdf(error) => kdf(error),
        ReencryptionError::Secret(error) => secret(error),
        ReencryptionError::Memory(_) => Kind::Memory,
        ReencryptionError::Commit(error) => commit(error),
    }
}

fn reencrypt(error: &ReencryptError) -> Kind {
    match error {
        ReencryptError::NotPending
        | ReencryptError::Unfinished
        | ReencryptError::SizeNotWhole { .. }
        | ReencryptError::ZoneTooSmall { .. }
        | ReencryptError::Detached => Kind::Parameters,
        ReencryptError::Format(error) => format(error),
        ReencryptError::Unverified { .. } | ReencryptError::TooSmall { .. } => Kind::Damaged,
        ReencryptError::Resilience
        | ReencryptError::JournalOfPlaintext
        | ReencryptError::OnlyOffline => Kind::Unsupported,
        ReencryptError::Thread => Kind::Memory,
        ReencryptError::Hash(error) => kdf(error),
        ReencryptError::Header(error) => header(error),
        ReencryptError::Commit(error) => commit(error),
        ReencryptError::Crypt(error) => crypt(error),
        ReencryptError::Secret(error) => secret(error),
        ReencryptError::Io(error) => io(error),
    }
}

fn room(error: &RoomError) -> Kind {
    match error {
        RoomError::Changed { .. } | RoomError::Size { .. } | RoomError::Damaged { .. } => {
            Kind::Damaged
        }
        RoomError::TooLarge { .. } => Kind::Unsupported,
        RoomError::Stopped => Kind::Interrupted,
        RoomError::Read(_) | RoomError::Store(_) => Kind::Storage,
        RoomError::Header(error) => header(error),
        RoomError::Io(error) => io(error),
    }
}
