//! A secret that libvirt keeps: a passphrase with a UUID and the use that it is for.

use core::fmt;
use core::str::FromStr;

use super::error::LibvirtError;
use super::library::call::{self, Handle};
use crate::secret::Passphrase;

/// What libvirt says of the value of a private secret (`VIR_ERR_INVALID_SECRET`).
const INVALID_SECRET: i32 = 65;

/// The most bytes that libvirt takes for a value (`VIR_SECRET_VALUE_MAX`… of its protocol).
pub const MAX_SECRET: usize = 65536;

/// A secret that libvirt keeps.
pub struct Secret(pub(super) Handle<call::Secret>);

/// What a secret is for; no two secrets are for the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Usage {
    /// The kind of use.
    pub kind: UsageType,
    /// Which one: the path of a volume, the name of a user, …
    pub id: String,
}

/// The kinds of use (`virSecretUsageType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum UsageType {
    /// For nothing in particular.
    None,
    /// Encrypts a volume, which is named by its path.
    Volume,
    /// Authenticates to Ceph.
    Ceph,
    /// Authenticates to an iSCSI target.
    Iscsi,
    /// Opens a TLS private key.
    Tls,
    /// Encrypts the state of a TPM.
    Vtpm,
    /// One that is newer than this program.
    Other(i32),
}

/// Their numbers and names in XML.
const TYPES: [(UsageType, i32, &str); 6] = [
    (UsageType::None, 0, "none"),
    (UsageType::Volume, 1, "volume"),
    (UsageType::Ceph, 2, "ceph"),
    (UsageType::Iscsi, 3, "iscsi"),
    (UsageType::Tls, 4, "tls"),
    (UsageType::Vtpm, 5, "vtpm"),
];

impl UsageType {
    /// libvirt's number for it.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::Other(number) => number,
            known => TYPES
                .iter()
                .find(|(kind, ..)| *kind == known)
                .map_or(0, |(_, number, _)| *number),
        }
    }

    fn of_number(number: i32) -> Self {
        TYPES
            .iter()
            .find(|(_, known, _)| *known == number)
            .map_or(Self::Other(number), |(kind, ..)| *kind)
    }
}

impl fmt::Display for UsageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match TYPES.iter().find(|(kind, ..)| kind == self) {
            Some((.., name)) => f.write_str(name),
            None => write!(f, "type {}", self.number()),
        }
    }
}

/// A text that is no kind of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a usage is none, volume, ceph, iscsi, tls or vtpm")]
pub struct ParseUsageError;

impl FromStr for UsageType {
    type Err = ParseUsageError;

    fn from_str(text: &str) -> Result<Self, ParseUsageError> {
        TYPES
            .iter()
            .find(|(.., name)| *name == text)
            .map(|(kind, ..)| *kind)
            .ok_or(ParseUsageError)
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

    /// What it is for.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn usage(&self) -> Result<Usage, LibvirtError> {
        let kind = UsageType::of_number(self.0.functions.secret_usage_type.call(&self.0)?);
        let id = match kind {
            UsageType::None => String::new(),
            _ => self.0.functions.secret_usage.call(&self.0)?,
        };
        Ok(Usage { kind, id })
    }

    /// Its description, which holds no value.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn xml(&self) -> Result<String, LibvirtError> {
        self.0.functions.secret_xml.call(&self.0, 0)
    }

    /// Its value.
    ///
    /// # Errors
    /// [`LibvirtError::Private`], [`LibvirtError::NoValue`], [`LibvirtError::Denied`] on a read-only connection, …
    pub fn value(&self) -> Result<Passphrase, LibvirtError> {
        self.0
            .functions
            .secret_value
            .call(&self.0)
            .map(Passphrase::from_locked)
            .map_err(|error| match error {
                // The secret is here: what is missing is its value, unless it went this very moment.
                LibvirtError::NoSecret(reply) => LibvirtError::NoValue(reply),
                LibvirtError::Failed(reply) if reply.code == INVALID_SECRET => {
                    LibvirtError::Private(reply)
                }
                other => other,
            })
    }

    /// Gives it a value, any bytes, in place of the one that it has.
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

    /// Forgets it and its value. Whether it is in use does not matter to libvirt: whoever uses it fails at the next start.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn undefine(&self) -> Result<(), LibvirtError> {
        self.0.functions.undefine_secret.call(&self.0).map(drop)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secret").field(&self.uuid().ok()).finish()
    }
}
