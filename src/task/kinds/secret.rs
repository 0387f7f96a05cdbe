//! Errors of secrets, and of libvirt as their source.

use std::io;

use super::kinds;
#[cfg(feature = "libvirt")]
use super::libvirt::libvirt;
#[cfg(feature = "libvirt")]
use crate::libvirt::ValueError;
use crate::secret::{HelperError, KeyStoreError, SecretError};
use crate::task::Kind;

kinds! {
    SecretError => secret,
}

#[cfg(feature = "libvirt")]
kinds! {
    ValueError => value,
}

pub(super) fn secret(error: &SecretError) -> Kind {
    match error {
        SecretError::Interrupted => Kind::Interrupted,
        SecretError::Lock(_) => Kind::Memory,
        SecretError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Kind::Permission
        }
        SecretError::Helper { source, .. } => helper(source),
        SecretError::Io { .. } | SecretError::Random(_) => Kind::Storage,
        SecretError::Scheme { source, .. } => scheme(source.as_ref()),
        SecretError::Empty
        | SecretError::Nothing { .. }
        | SecretError::Mismatch
        | SecretError::TooWeak(_) => Kind::WrongPassphrase,
        _ => Kind::Parameters,
    }
}

fn helper(error: &HelperError) -> Kind {
    match error {
        HelperError::Relative => Kind::Parameters,
        HelperError::Refused(error) | HelperError::Start(error) | HelperError::Read(error) => {
            Kind::of_io(error)
        }
        _ => Kind::Storage,
    }
}

/// The kind of an error of the module that has a scheme of secrets.
fn scheme(error: &(dyn std::error::Error + 'static)) -> Kind {
    #[cfg(feature = "libvirt")]
    if let Some(error) = error.downcast_ref() {
        return value(error);
    }
    error.downcast_ref().map_or(Kind::Storage, key_store)
}

fn key_store(error: &KeyStoreError) -> Kind {
    match error {
        KeyStoreError::NotFound { .. } | KeyStoreError::NotAccepted { .. } => Kind::Parameters,
        KeyStoreError::Helper(error) => helper(error),
        KeyStoreError::Conflict | KeyStoreError::Present => Kind::Exists,
        KeyStoreError::Denied => Kind::Permission,
        KeyStoreError::Secret(error) => secret(error),
        KeyStoreError::NotReadBack(error) => key_store(error),
        _ => Kind::Storage,
    }
}

#[cfg(feature = "libvirt")]
fn value(error: &ValueError) -> Kind {
    match error {
        ValueError::Present => Kind::Exists,
        ValueError::Unseen(_) => Kind::Permission,
        ValueError::Libvirt(error) | ValueError::NotReadBack(error) => libvirt(error),
        ValueError::Generate(error) => secret(error),
        ValueError::Altered => Kind::Storage,
    }
}
