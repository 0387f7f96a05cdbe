//! The definition of a secret (`<secret>`; libvirt's formatsecret page). Its value is no part of it.

use std::fmt;

use super::write::Out;
use super::{ReadError, WriteError, missing, required, root, text, unknown};
use crate::xml::{Element, Xml};

/// A secret as it is defined.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecretXml {
    /// Its UUID; libvirt makes one where there is none.
    pub uuid: Option<String>,
    /// What it is for; each use has one secret at most.
    pub usage: Option<Usage>,
    /// A text for people.
    pub description: Option<String>,
    /// It is kept in memory alone, and gone when the daemon ends.
    pub ephemeral: bool,
    /// Its value is given to nobody.
    pub private: bool,
}

/// What a secret is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Usage {
    /// What sort of use.
    pub kind: UsageType,
    /// Whose: the path of a volume, or the name of another use.
    pub id: String,
}

/// Sorts of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum UsageType {
    /// The passphrase of a storage volume; a pool refresh finds it by the volume's path.
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

    /// Reads libvirt's name of it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// libvirt's name of it.
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

    /// The element that says whose it is.
    fn element(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Iscsi => "target",
            Self::Ceph | Self::Tls | Self::Vtpm => "name",
        }
    }
}

impl Usage {
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

    /// The document.
    ///
    /// # Errors
    /// [`WriteError`] where a text is none of XML's.
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
