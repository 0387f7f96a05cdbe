//! A disk of a domain.

use uuid::Uuid;

use super::journal;
use crate::libvirt::{Connection, Domain};
use crate::task::Error;

/// A disk that QEMU decrypts, of a domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Unit {
    /// The name of the domain.
    pub domain_name: String,
    /// The disk in the guest, such as `vda`.
    pub target: String,
    pub(super) domain: Uuid,
}

impl Unit {
    pub(super) fn find(&self, connection: &Connection) -> Result<Domain, Error> {
        Ok(connection.domain(&self.domain.to_string())?)
    }

    pub(super) fn journal(&self) -> Result<String, Error> {
        journal::name(&self.domain, &self.target)
    }
}

/// The disk and its domain, as in messages.
impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.target, self.domain_name)
    }
}
