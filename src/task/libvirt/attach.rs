//! What is checked before a disk is attached to a domain.

use crate::libvirt::xml::{Disk, DomainXml, SecretRef};
use crate::libvirt::{Connection, LibvirtError};
use crate::task::Error;

/// The disk of a domain with the same storage as a new one, unless both are shareable.
#[must_use]
pub fn twin<'a>(domain: &'a DomainXml, new: &Disk) -> Option<&'a Disk> {
    let store = &new.source.as_ref()?.store;
    domain.disks.iter().find(|disk| {
        let same = disk.source.as_ref().is_some_and(|one| one.store == *store);
        same && !(disk.shareable && new.shareable)
    })
}

/// The first of `vda`, `vdb`, … `vdz` that is free in all of these descriptions of a domain.
#[must_use]
pub fn free_target(descriptions: &[DomainXml]) -> Option<String> {
    let mut names = ('a'..='z').map(|letter| format!("vd{letter}"));
    names.find(|name| {
        let mut disks = descriptions.iter().flat_map(|domain| &domain.disks);
        !disks.any(|disk| disk.target.dev == *name)
    })
}

/// Fails for a disk one of whose secrets does not exist or has no value, which would otherwise be
/// noticed when the domain starts.
///
/// # Errors
/// [`LibvirtError::NoSecret`], [`LibvirtError::NoValue`], …
pub fn check_secrets(connection: &Connection, disk: &Disk) -> Result<(), Error> {
    let source = disk.source.iter();
    let secrets = source.flat_map(|source| {
        let encryption = source.encryption.iter().flat_map(|one| &one.secrets);
        encryption.chain(source.auth.iter().map(|auth| &auth.secret))
    });
    for secret in secrets {
        check_value(connection, secret)
            .map_err(|error| Error::from(error).about(format_args!("secret {secret}")))?;
    }
    Ok(())
}

fn check_value(connection: &Connection, secret: &SecretRef) -> Result<(), LibvirtError> {
    match connection.find_secret(secret)?.value() {
        // It has one, or libvirt does not tell.
        Ok(_) | Err(LibvirtError::Private(_) | LibvirtError::Denied(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
