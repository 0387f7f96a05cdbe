//! The disks and secrets of a domain (libvirt's formatdomain page).

use super::disk::Disk;
use super::encryption::SecretRef;
use super::{ReadError, missing, root, text};
use crate::xml::{Element, Xml, shares_memory};

/// The name, disks and secrets of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DomainXml {
    /// Its name.
    pub name: String,
    /// Its UUID. A definition that libvirt has not seen yet may have none.
    pub uuid: Option<String>,
    /// Its disks, in the order of the document.
    pub disks: Vec<Disk>,
    /// Every reference to a secret, in any part of the domain.
    pub secrets: Vec<SecretUse>,
    /// Whether programs of the host can share all memory of the domain, as a disk of vhost-user
    /// needs it.
    pub shares_memory: bool,
}

/// A reference of a domain to a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SecretUse {
    /// The secret.
    pub secret: SecretRef,
    /// What uses it: `disk vda`, `tpm`, `hostdev`.
    pub by: String,
}

impl DomainXml {
    /// Reads a domain, running or defined.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        let xml = Xml::parse(bytes)?;
        let domain = root(&xml, "domain")?;
        let disks = domain
            .child("devices")
            .into_iter()
            .flat_map(|devices| devices.children("disk"));
        let mut secrets = Vec::new();
        for part in parts(domain) {
            for element in part.descendants() {
                if let Some(secret) = secret_of(element)? {
                    secrets.push(SecretUse {
                        secret,
                        by: name_of(part),
                    });
                }
            }
        }
        Ok(Self {
            name: text(domain, "name").ok_or_else(|| missing(domain, "name"))?,
            uuid: text(domain, "uuid"),
            disks: disks.map(Disk::read).collect::<Result<_, _>>()?,
            secrets,
            shares_memory: shares_memory(domain),
        })
    }

    /// The disk with this target in the guest, or this path on the host.
    #[must_use]
    pub fn disk(&self, target_or_path: &str) -> Option<&Disk> {
        self.disks.iter().find(|disk| {
            let path = disk.source.as_ref().and_then(|source| source.store.path());
            disk.target.dev == target_or_path || path == Some(target_or_path)
        })
    }
}

/// Each device, and each element beside `<devices>`.
fn parts<'a>(domain: Element<'a>) -> impl Iterator<Item = Element<'a>> {
    domain.elements().flat_map(|part| {
        let devices = part.is("devices");
        let within = part.elements().filter(move |_| devices);
        within.chain((!devices).then_some(part))
    })
}

fn name_of(part: Element<'_>) -> String {
    let target = part
        .child("target")
        .and_then(|target| target.attribute("dev"));
    match target {
        Some(dev) => format!("{} {dev}", part.name()),
        None => part.name().to_owned(),
    }
}

/// `<secret type='…' uuid='…'/>` or by usage; `<encryption secret='UUID'/>` of an emulated TPM.
fn secret_of(element: Element<'_>) -> Result<Option<SecretRef>, ReadError> {
    if element.is("secret") {
        return SecretRef::read(element).map(Some);
    }
    let uuid = element
        .attribute("secret")
        .filter(|_| element.is("encryption"));
    Ok(uuid.map(|uuid| SecretRef::Uuid(uuid.to_owned())))
}
