//! How an image is encrypted, and which secret opens it (`<encryption>`; libvirt's
//! formatstorageencryption page).

use std::fmt;

use super::secret::{Usage, UsageType};
use super::write::Out;
use super::{ReadError, missing, optional, required, unknown};
use crate::xml::Element;

/// The encryption of an image: its format, the engine that decrypts it, and the secrets that open
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encryption {
    /// The format of the header.
    pub format: Format,
    /// What decrypts. libvirt's default is QEMU.
    pub engine: Option<Engine>,
    /// The secrets, in the order of the layers. More than one is possible only for librbd, since
    /// libvirt 9.3.
    pub secrets: Vec<SecretRef>,
}

/// A format of encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// `luks`: LUKS1, the only one that QEMU itself opens.
    Luks,
    /// `luks2`: only for librbd.
    Luks2,
    /// `luks-any`: the version that librbd finds, since libvirt 9.3.
    LuksAny,
    /// `qcow`: qcow2's own AES encryption, which is insecure.
    Qcow,
    /// `default`: only in the definition of a volume that is to be created.
    Default,
}

/// What decrypts an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Engine {
    /// The emulator's block layer.
    Qemu,
    /// Ceph's library, for RBD.
    Librbd,
}

/// A reference to a secret, by its UUID or its usage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SecretRef {
    /// Its UUID, in the spelling of the document.
    Uuid(String),
    /// Its usage.
    Usage(Usage),
}

const FORMATS: &[(Format, &str)] = &[
    (Format::Luks, "luks"),
    (Format::Luks2, "luks2"),
    (Format::LuksAny, "luks-any"),
    (Format::Qcow, "qcow"),
    (Format::Default, "default"),
];

const ENGINES: &[(Engine, &str)] = &[(Engine::Qemu, "qemu"), (Engine::Librbd, "librbd")];

/// The value with this name in a table.
fn named<T: Copy>(table: &[(T, &str)], name: &str) -> Option<T> {
    let mut rows = table.iter();
    rows.find(|row| row.1 == name).map(|row| row.0)
}

/// The name of a value in a table, which has all values.
fn name_of<T: PartialEq>(table: &[(T, &'static str)], value: &T) -> &'static str {
    let mut rows = table.iter();
    rows.find(|row| row.0 == *value).map_or("", |row| row.1)
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(FORMATS, self))
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(ENGINES, self))
    }
}

/// The UUID, or `usage=TYPE:ID`.
impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => f.write_str(uuid),
            Self::Usage(usage) => write!(f, "usage={usage}"),
        }
    }
}

impl Encryption {
    /// LUKS1 that QEMU decrypts, with one secret.
    #[must_use]
    pub fn luks1(secret: SecretRef) -> Self {
        Self::new(Format::Luks, None, vec![secret])
    }

    /// A format, the engine that decrypts it (libvirt's default is QEMU), and its secrets.
    #[must_use]
    pub fn new(format: Format, engine: Option<Engine>, secrets: Vec<SecretRef>) -> Self {
        Self {
            format,
            engine,
            secrets,
        }
    }

    /// The `<encryption>` of an element, if it has one.
    pub(super) fn within(element: Element<'_>) -> Result<Option<Self>, ReadError> {
        element.child("encryption").map(Self::read).transpose()
    }

    fn read(element: Element<'_>) -> Result<Self, ReadError> {
        let format = required(element, "format")?;
        let engine = element.attribute("engine").map(|engine| {
            named(ENGINES, engine).ok_or_else(|| unknown(element, "the engine", engine))
        });
        Ok(Self {
            format: named(FORMATS, format)
                .ok_or_else(|| unknown(element, "the format of encryption", format))?,
            engine: engine.transpose()?,
            secrets: element
                .children("secret")
                .map(SecretRef::read)
                .collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn write(&self, out: &mut Out) {
        let format = name_of(FORMATS, &self.format);
        let engine = self.engine.as_ref().map(|engine| name_of(ENGINES, engine));
        let attributes = [("format", Some(format)), ("engine", engine)];
        out.element("encryption", &attributes, |out| {
            for secret in &self.secrets {
                secret.write("passphrase", out);
            }
        });
    }
}

impl SecretRef {
    /// Reads a `<secret>` that refers to a secret: of an encryption (`type='passphrase'`) or a
    /// login.
    pub(super) fn read(element: Element<'_>) -> Result<Self, ReadError> {
        if let Some(uuid) = optional(element, "uuid") {
            return Ok(Self::Uuid(uuid));
        }
        let id = optional(element, "usage").ok_or_else(|| missing(element, "uuid or usage"))?;
        let kind = match required(element, "type")? {
            "passphrase" => UsageType::Volume,
            other => UsageType::parse(other)
                .ok_or_else(|| unknown(element, "the type of secret", other))?,
        };
        Ok(Self::Usage(Usage { kind, id }))
    }

    pub(super) fn write(&self, kind: &str, out: &mut Out) {
        let (uuid, usage) = match self {
            Self::Uuid(uuid) => (Some(uuid.as_str()), None),
            Self::Usage(usage) => (None, Some(usage.id.as_str())),
        };
        out.empty(
            "secret",
            &[("type", Some(kind)), ("uuid", uuid), ("usage", usage)],
        );
    }
}
