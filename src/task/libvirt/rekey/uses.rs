//! Which disks of which domains are a volume.

use std::fmt;

use super::error::RekeyError;
use crate::libvirt::xml::DomainXml;
use crate::libvirt::{Connection, Domain, DomainView, LibvirtError};
use crate::task::Error;
use crate::task::libvirt::identity::Identity;

/// A disk of a domain that is a volume, or has it as a layer or as the destination of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) domain: String,
    pub(super) target: String,
    /// Whether it is a layer below the disk, or the destination of a copy.
    pub(super) beside: bool,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.beside { "a layer of the" } else { "the" };
        write!(f, "{what} disk {} of {}", self.target, self.domain)
    }
}

/// The state of a running domain (`inactive` is false), or its definition.
pub(super) fn described(domain: &Domain, inactive: bool) -> Result<DomainXml, Error> {
    let xml = domain.xml(DomainView::new().inactive(inactive))?;
    match DomainXml::parse(xml.as_bytes()) {
        Ok(xml) => Ok(xml),
        Err(error) => {
            Err(Error::new(crate::task::Kind::Storage, error)
                .about(domain.name().unwrap_or_default()))
        }
    }
}

/// Every disk that is this volume, in the running domains and in the definitions of all.
///
/// # Errors
/// [`RekeyError::Unread`]: a domain that cannot be read may name the volume.
pub(super) fn uses(connection: &Connection, volume: &Identity) -> Result<Vec<Use>, Error> {
    let mut found = Vec::new();
    for domain in connection.domains()? {
        let views = match domain.is_active()? {
            true => &[true, false][..],
            false => &[true],
        };
        for &inactive in views {
            let xml = match domain.xml(DomainView::new().inactive(inactive)) {
                // It was removed, or has ended, meanwhile.
                Err(LibvirtError::NoDomain(_)) => continue,
                xml => xml?,
            };
            let Ok(xml) = DomainXml::parse(xml.as_bytes()) else {
                return Err(RekeyError::Unread(domain.name()?).into());
            };
            for disk in &xml.disks {
                let top = disk.source.iter().map(|source| (source, false));
                let beside = disk.backing.iter().chain(&disk.mirror);
                let beside = beside.map(|layer| (&layer.source, true));
                for (source, beside) in top.chain(beside) {
                    if Identity::of_store(&source.store, Some(connection)).is(volume) {
                        let one = Use {
                            domain: xml.name.clone(),
                            target: disk.target.dev.clone(),
                            beside,
                        };
                        if !found.contains(&one) {
                            found.push(one);
                        }
                    }
                }
            }
        }
    }
    Ok(found)
}
