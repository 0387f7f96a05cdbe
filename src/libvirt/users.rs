//! Which domains and volumes use which secret. libvirt itself does not record that.

use core::fmt;

use super::error::LibvirtError;
use super::xml::{DomainXml, ReadError, SecretRef, Usage, UsageType, VolumeXml};
use super::{Connection, domain};

/// A reference to a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The secret, as the XML names it.
    pub secret: SecretRef,
    /// What refers to it.
    pub kind: UserKind,
}

/// What can refer to a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum UserKind {
    /// A domain, in its running state or its definition.
    Domain {
        /// Its name.
        name: String,
        /// The part of it that refers to the secret: `disk vda`, `tpm`.
        by: String,
    },
    /// A volume of a pool that is started.
    Volume {
        /// The pool's name.
        pool: String,
        /// The volume's path.
        path: String,
    },
}

impl fmt::Display for UserKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain { name, by } => write!(f, "domain {name} ({by})"),
            Self::Volume { pool, path } => write!(f, "volume {path} of pool {pool}"),
        }
    }
}

/// All references to secrets that a connection shows.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Users {
    /// Each reference.
    pub users: Vec<User>,
    /// Domains and volumes whose XML could not be read, and which may refer to a secret: their
    /// names and errors.
    pub unread: Vec<(String, ReadError)>,
}

impl Users {
    /// What refers to the secret with this UUID and usage, without duplicates.
    #[must_use]
    pub fn of(&self, uuid: &uuid::Uuid, usage: Option<&Usage>) -> Vec<&UserKind> {
        let mut found: Vec<_> = self
            .users
            .iter()
            .filter(|user| match &user.secret {
                SecretRef::Uuid(text) => uuid::Uuid::try_parse(text).as_ref() == Ok(uuid),
                SecretRef::Usage(other) => Some(other) == usage,
            })
            .map(|user| &user.kind)
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

/// Reads every domain, in its running state and its definition, and every volume of every started
/// pool.
///
/// A volume also counts as a user of the secret whose usage is the volume's path: libvirt connects
/// the two when it refreshes the pool.
///
/// # Errors
/// [`LibvirtError`]. A driver without pools has none.
pub fn users(connection: &Connection) -> Result<Users, LibvirtError> {
    let mut found = Users::default();
    for domain in connection.domains()? {
        let mut kinds = vec![true];
        if domain.is_active()? {
            kinds.push(false);
        }
        for inactive in kinds {
            let xml = match domain.xml(domain::DomainView {
                inactive,
                secure: false,
            }) {
                // It was removed meanwhile.
                Err(LibvirtError::NoDomain(_)) => continue,
                other => other?,
            };
            match DomainXml::parse(xml.as_bytes()) {
                Ok(xml) => found.users.extend(xml.secrets.into_iter().map(|user| User {
                    secret: user.secret,
                    kind: UserKind::Domain {
                        name: xml.name.clone(),
                        by: user.by,
                    },
                })),
                Err(error) => found
                    .unread
                    .push((format!("domain {}", domain.name()?), error)),
            }
        }
    }
    let pools = match connection.pools() {
        Err(LibvirtError::Unsupported(_)) => Vec::new(),
        pools => pools?,
    };
    for pool in pools {
        if pool.is_active()? {
            let name = pool.name()?;
            for volume in pool.volumes()? {
                let xml = match volume.xml() {
                    // Its file is missing, and the pool was not refreshed since. It may come back.
                    Err(LibvirtError::NoVolume(_)) => None,
                    xml => Some(xml?),
                };
                found.add_volume(&name, volume.path()?, xml.as_deref());
            }
        }
    }
    Ok(found)
}

impl Users {
    /// Adds what a volume refers to. Without a description, that is the secret for its path.
    fn add_volume(&mut self, pool: &str, path: String, xml: Option<&str>) {
        let encryption = match xml.map(|xml| VolumeXml::parse(xml.as_bytes())) {
            None => None,
            Some(Ok(xml)) => xml.encryption,
            Some(Err(error)) => {
                self.unread.push((format!("volume {path}"), error));
                None
            }
        };
        let by_path = SecretRef::Usage(Usage {
            kind: UsageType::Volume,
            id: path.clone(),
        });
        let named = encryption
            .map(|encryption| encryption.secrets)
            .unwrap_or_default();
        for secret in named.into_iter().chain([by_path]) {
            let kind = UserKind::Volume {
                pool: pool.to_owned(),
                path: path.clone(),
            };
            self.users.push(User { secret, kind });
        }
    }
}
