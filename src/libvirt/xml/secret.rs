//! The definition of a secret (`<secret>`; libvirt's formatsecret page). It does not hold the
//! value.

use std::fmt;

use super::write::Out;
use super::{ReadError, WriteError, missing, required, root, text, unknown};
use crate::xml::{Element, Xml};

/// The definition of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SecretXml {
    /// Its UUID. Without one, libvirt generates it.
    pub uuid: Option<String>,
    /// Its usage. No two secrets have the same usage.
    pub usage: Option<Usage>,
    /// A description for people.
    pub description: Option<String>,
    /// libvirt keeps it only in the memory of its daemon, and loses it when the daemon ends.
    pub ephemeral: bool,
    /// libvirt does not return its value to any client.
    pub private: bool,
}

/// What a secret is used for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Usage {
    /// The type of the usage.
    pub kind: UsageType,
    /// The path of a volume, or the name that other types have.
    pub id: String,
}

/// A type of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum UsageType {
    /// The passphrase of a storage volume. A pool finds it by the path of the volume.
    Volume,
    /// A login to Ceph.
    Ceph,
    /// A login to an iSCSI target.
    Iscsi,
    /// The passphrase of a TLS key.
    Tls,
    /// The passphrase of an emulated TPM's state.
    Vtpm,
}

impl UsageType {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Volume, Self::Ceph, Self::Iscsi, Self::Tls, Self::Vtpm];

    /// The type with this name in libvirt.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its name in libvirt.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Ceph => "ceph",
            Self::Iscsi => "iscsi",
            Self::Tls => "tls",
            Self::Vtpm => "vtpm",
        }
    }

    /// The element that holds the ID.
    fn element(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Iscsi => "target",
            Self::Ceph | Self::Tls | Self::Vtpm => "name",
        }
    }
}

impl Usage {
    /// What a secret of this type is used for.
    pub fn new(kind: UsageType, id: impl Into<String>) -> Self {
        Self {
            kind,
            id: id.into(),
        }
    }

    /// A volume, by its path or by a name of its own.
    pub fn volume(path: impl Into<String>) -> Self {
        Self::new(UsageType::Volume, path)
    }

    fn read(usage: Element<'_>) -> Result<Self, ReadError> {
        let name = required(usage, "type")?;
        let kind = UsageType::parse(name).ok_or_else(|| unknown(usage, "the usage type", name))?;
        let id = text(usage, kind.element()).ok_or_else(|| missing(usage, kind.element()))?;
        Ok(Self { kind, id })
    }
}

/// `TYPE:ID`.
impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.name(), self.id)
    }
}

impl SecretXml {
    /// A secret that is stored and can be read, without a description. libvirt chooses its UUID.
    #[must_use]
    pub fn new(usage: Option<Usage>) -> Self {
        Self {
            uuid: None,
            usage,
            description: None,
            ephemeral: false,
            private: false,
        }
    }

    setters! {
        /// Its UUID.
        uuid: Option<String>,

        /// A description for persons.
        description: Option<String>,

        /// Whether libvirt keeps it in memory only.
        ephemeral: bool,

        /// Whether its value cannot be read through libvirt's API.
        private: bool,
    }

    /// Reads a definition.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        let xml = Xml::parse(bytes)?;
        let secret = root(&xml, "secret")?;
        Ok(Self {
            uuid: text(secret, "uuid"),
            usage: secret.child("usage").map(Usage::read).transpose()?,
            description: text(secret, "description"),
            ephemeral: secret.attribute("ephemeral") == Some("yes"),
            private: secret.attribute("private") == Some("yes"),
        })
    }

    /// The XML by which the secret is defined.
    ///
    /// # Errors
    /// [`WriteError`] when XML cannot carry one of the strings.
    pub fn to_xml(&self) -> Result<String, WriteError> {
        let yes_no = |is| Some(if is { "yes" } else { "no" });
        let attributes = [
            ("ephemeral", yes_no(self.ephemeral)),
            ("private", yes_no(self.private)),
        ];
        Out::document(|out| {
            out.element("secret", &attributes, |out| {
                out.text_if("uuid", self.uuid.as_deref());
                out.text_if("description", self.description.as_deref());
                if let Some(usage) = &self.usage {
                    out.element("usage", &[("type", Some(usage.kind.name()))], |out| {
                        out.text(usage.kind.element(), &[], &usage.id);
                    });
                }
            });
        })
    }
}
