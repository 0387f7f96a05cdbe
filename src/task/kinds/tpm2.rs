//! Errors of TPMs.

use super::kinds;
use super::secret::secret;
use crate::task::Kind;
use crate::tokens::tpm2::Tpm2Error;

kinds! {
    Tpm2Error => tpm2,
}

pub(super) fn tpm2(error: &Tpm2Error) -> Kind {
    match error {
        Tpm2Error::Open { source, .. } => Kind::of_io(source),
        Tpm2Error::Foreign { .. }
        | Tpm2Error::OwnerPassword
        | Tpm2Error::KeyPassword
        | Tpm2Error::Lockout => Kind::Permission,
        Tpm2Error::Token(_) => Kind::Damaged,
        Tpm2Error::Unsupported(_) => Kind::Unsupported,
        Tpm2Error::OtherTpm
        | Tpm2Error::NoKey(_)
        | Tpm2Error::Pcrs { .. }
        | Tpm2Error::Policy
        | Tpm2Error::WrongPin
        | Tpm2Error::BadPin => Kind::WrongPassphrase,
        Tpm2Error::NeedsPin | Tpm2Error::NoPcrs { .. } => Kind::Parameters,
        Tpm2Error::NoMemory => Kind::Busy,
        Tpm2Error::Interrupted => Kind::Interrupted,
        Tpm2Error::Secret(error) => secret(error),
        _ => Kind::Storage,
    }
}
