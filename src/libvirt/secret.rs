//! A secret that libvirt keeps: a value, usually a passphrase, with a UUID and a usage.

use core::fmt;
use core::str::FromStr;

use super::connection::Connection;
use super::error::LibvirtError;
use super::library::call::{self, Handle};
use super::xml::{SecretRef, Usage, UsageType};
use crate::secret::Passphrase;

/// libvirt's error code for the value of a private secret (`VIR_ERR_INVALID_SECRET`).
const INVALID_SECRET: i32 = 65;

/// The longest value that libvirt takes, in bytes (`REMOTE_SECRET_VALUE_MAX` of its protocol).
pub const MAX_SECRET: usize = 65536;

/// A secret that libvirt keeps.
pub struct Secret(pub(super) Handle<call::Secret>);

/// libvirt's number of each usage type (`virSecretUsageType`).
const NUMBERS: [(UsageType, i32); 5] = [
    (UsageType::Volume, 1),
    (UsageType::Ceph, 2),
    (UsageType::Iscsi, 3),
    (UsageType::Tls, 4),
    (UsageType::Vtpm, 5),
];

/// The number of a usage type.
fn number_of(kind: UsageType) -> i32 {
    let mut rows = NUMBERS.iter();
    rows.find(|row| row.0 == kind).map_or(0, |row| row.1)
}

/// Text that is not the name of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a secret is named by its UUID, or by usage=TYPE:ID, where TYPE is volume, ceph, iscsi, tls or vtpm"
)]
pub struct ParseSecretError;

/// `UUID`, or `usage=TYPE:ID`, as `Display` writes it.
impl FromStr for SecretRef {
    type Err = ParseSecretError;

    fn from_str(text: &str) -> Result<Self, ParseSecretError> {
        if let Some(usage) = text.strip_prefix("usage=") {
            return usage.parse().map(Self::Usage);
        }
        let uuid = uuid::Uuid::try_parse(text).map_err(|_| ParseSecretError)?;
        Ok(Self::Uuid(uuid.to_string()))
    }
}

/// `TYPE:ID`, as `Display` writes it.
impl FromStr for Usage {
    type Err = ParseSecretError;

    fn from_str(text: &str) -> Result<Self, ParseSecretError> {
        let (kind, id) = text.split_once(':').ok_or(ParseSecretError)?;
        let kind = UsageType::parse(kind).ok_or(ParseSecretError)?;
        if id.is_empty() {
            return Err(ParseSecretError);
        }
        Ok(Self {
            kind,
            id: id.to_owned(),
        })
    }
}

impl Secret {
    /// Its UUID.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn uuid(&self) -> Result<uuid::Uuid, LibvirtError> {
        self.0.functions.secret_uuid.call(&self.0)
    }

    /// Its usage. `None` if it has none, or one of a type that this crate does not know.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn usage(&self) -> Result<Option<Usage>, LibvirtError> {
        let number = self.0.functions.secret_usage_type.call(&self.0)?;
        let Some((kind, _)) = NUMBERS.into_iter().find(|row| row.1 == number) else {
            return Ok(None);
        };
        let id = self.0.functions.secret_usage.call(&self.0)?;
        Ok(Some(Usage { kind, id }))
    }

    /// Its definition as XML, which does not hold its value.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn xml(&self) -> Result<String, LibvirtError> {
        self.0.functions.secret_xml.call(&self.0, 0)
    }

    /// Its value.
    ///
    /// # Errors
    /// [`LibvirtError::Private`], [`LibvirtError::NoValue`], [`LibvirtError::Denied`] on a
    /// read-only connection, …
    pub fn value(&self) -> Result<Passphrase, LibvirtError> {
        self.0
            .functions
            .secret_value
            .call(&self.0)
            .map(Passphrase::from_locked)
            .map_err(|error| match error {
                // The secret exists, so its value is missing, unless the secret was removed just
                // now.
                LibvirtError::NoSecret(reply) => LibvirtError::NoValue(reply),
                LibvirtError::Failed(reply) if reply.code == INVALID_SECRET => {
                    LibvirtError::Private(reply)
                }
                other => other,
            })
    }

    /// Sets its value, which may be any bytes, in place of the present one.
    ///
    /// # Errors
    /// [`LibvirtError::TooLong`], [`LibvirtError::Denied`] on a read-only connection, …
    pub fn set_value(&self, value: &Passphrase) -> Result<(), LibvirtError> {
        let len = value.as_bytes().len();
        if len > MAX_SECRET {
            return Err(LibvirtError::TooLong {
                len,
                limit: MAX_SECRET,
            });
        }
        self.0
            .functions
            .set_secret_value
            .call(&self.0, value.as_bytes())
    }

    /// Removes it and its value. libvirt does not look whether it is in use: a domain that needs it
    /// fails at its next start.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn undefine(&self) -> Result<(), LibvirtError> {
        self.0.functions.undefine_secret.call(&self.0).map(drop)
    }
}

impl Connection {
    /// All secrets.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn secrets(&self) -> Result<Vec<Secret>, LibvirtError> {
        let found = self.0.functions.secrets.call(&self.0, 0)?;
        Ok(found.into_iter().map(Secret).collect())
    }

    /// The secret with this UUID.
    ///
    /// # Errors
    /// [`LibvirtError::NoSecret`], …
    pub fn secret(&self, uuid: &uuid::Uuid) -> Result<Secret, LibvirtError> {
        let functions = self.0.functions;
        functions
            .secret_by_uuid
            .call(&self.0, &uuid.to_string())
            .map(Secret)
    }

    /// The secret with this usage.
    ///
    /// # Errors
    /// [`LibvirtError::NoSecret`], …
    pub fn secret_for(&self, usage: &Usage) -> Result<Secret, LibvirtError> {
        let functions = self.0.functions;
        functions
            .secret_by_usage
            .call(&self.0, number_of(usage.kind), &usage.id)
            .map(Secret)
    }

    /// The secret with this UUID or usage.
    ///
    /// # Errors
    /// [`LibvirtError::NoSecret`], …
    pub fn find_secret(&self, reference: &SecretRef) -> Result<Secret, LibvirtError> {
        match reference {
            SecretRef::Uuid(uuid) => self
                .0
                .functions
                .secret_by_uuid
                .call(&self.0, uuid)
                .map(Secret),
            SecretRef::Usage(usage) => self.secret_for(usage),
        }
    }

    /// Defines a secret, which has no value yet. A secret with the same UUID is changed.
    ///
    /// # Errors
    /// [`LibvirtError::DuplicateUsage`] when another secret has the same usage, …
    pub fn define_secret(&self, xml: &str) -> Result<Secret, LibvirtError> {
        let defined = self.0.functions.define_secret.call(&self.0, xml, 0);
        defined.map(Secret).map_err(|error| match error {
            // libvirt has no error code for it.
            LibvirtError::Failed(reply) if reply.message.contains("already defined for use") => {
                LibvirtError::DuplicateUsage(reply)
            }
            other => other,
        })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secret").field(&self.uuid().ok()).finish()
    }
}
