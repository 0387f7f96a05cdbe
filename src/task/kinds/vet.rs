//! Errors of the search for plaintext.

use super::{io, kinds};
use crate::task::Kind;
use crate::vet::ciphertext::VetError;

kinds! {
    VetError => vet,
}

fn vet(error: &VetError) -> Kind {
    match error {
        VetError::Header(_) | VetError::NoHeader => Kind::Damaged,
        VetError::Tagged => Kind::Unsupported,
        VetError::Io(error) => io(error),
        VetError::Interrupted => Kind::Interrupted,
    }
}
