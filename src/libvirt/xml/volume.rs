//! A storage volume (`<volume>`; libvirt's formatstorage page).

use super::encryption::Encryption;
use super::write::Out;
use super::{ReadError, WriteError, missing, optional, root, text, unknown};
use crate::xml::{Element, Xml};

/// A volume of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeXml {
    /// Its name in the pool.
    pub name: String,
    /// What it is: `file`, `block`, `network`, … Where that is not stated, it is a file.
    pub kind: Option<String>,
    /// The size of its contents, in bytes.
    pub capacity: Option<u64>,
    /// The space that is allocated in the storage, in bytes.
    pub allocation: Option<u64>,
    /// Its path on the host. A volume that is to be created has none.
    pub path: Option<String>,
    /// The format of the file: `raw`, `qcow2`, …
    pub format: Option<String>,
    /// How it is encrypted.
    pub encryption: Option<Encryption>,
    /// The path of its backing file.
    pub backing: Option<String>,
}

impl VolumeXml {
    /// A volume of which only the name is stated.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: None,
            capacity: None,
            allocation: None,
            path: None,
            format: None,
            encryption: None,
            backing: None,
        }
    }

    setters! {
        /// The size of its contents, in bytes.
        capacity: Option<u64>,

        /// The space that is allocated in the storage, in bytes.
        allocation: Option<u64>,

        /// The format of the file: `raw`, `qcow2`, …
        format: Option<String>,

        /// How it is encrypted.
        encryption: Option<Encryption>,
    }

    /// Reads a volume.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        let xml = Xml::parse(bytes)?;
        let volume = root(&xml, "volume")?;
        let target = volume.child("target");
        let within = |name| target.and_then(|target| text(target, name));
        let encryption = target.map(Encryption::within).transpose()?.flatten();
        Ok(Self {
            name: text(volume, "name").ok_or_else(|| missing(volume, "name"))?,
            kind: optional(volume, "type"),
            capacity: volume.child("capacity").map(bytes_of).transpose()?,
            allocation: volume.child("allocation").map(bytes_of).transpose()?,
            path: within("path"),
            format: volume
                .at(&["target", "format"])
                .and_then(|format| optional(format, "type")),
            encryption,
            backing: volume
                .child("backingStore")
                .and_then(|backing| text(backing, "path")),
        })
    }

    /// The XML by which a pool creates the volume.
    ///
    /// # Errors
    /// [`WriteError`] when XML cannot carry one of the strings.
    pub fn to_xml(&self) -> Result<String, WriteError> {
        let size = |out: &mut Out, name: &str, bytes: Option<u64>| {
            if let Some(bytes) = bytes {
                out.text(name, &[("unit", Some("bytes"))], &bytes.to_string());
            }
        };
        Out::document(|out| {
            out.element("volume", &[], |out| {
                out.text("name", &[], &self.name);
                size(out, "capacity", self.capacity);
                size(out, "allocation", self.allocation);
                out.element("target", &[], |out| {
                    out.text_if("path", self.path.as_deref());
                    if let Some(format) = &self.format {
                        out.empty("format", &[("type", Some(format))]);
                    }
                    if let Some(encryption) = &self.encryption {
                        encryption.write(out);
                    }
                });
            });
        })
    }
}

/// A size with its unit (`scaledInteger`): bytes by default, powers of 1024 for `KiB` or `K`,
/// powers of 1000 for `KB`.
fn bytes_of(element: Element<'_>) -> Result<u64, ReadError> {
    let text = element.text();
    let unit = element.attribute("unit").unwrap_or("bytes");
    let scaled = || {
        let number: u64 = text.parse().ok()?;
        number.checked_mul(scale(unit)?)
    };
    scaled().ok_or_else(|| unknown(element, "the size", &format!("{text} {unit}")))
}

fn scale(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    if matches!(unit.as_str(), "b" | "byte" | "bytes") {
        return Some(1);
    }
    let power = "kmgtpe".find(unit.get(..1)?)?;
    let base: u64 = match unit.get(1..)? {
        "" | "ib" => 1024,
        "b" => 1000,
        _ => return None,
    };
    base.checked_pow(u32::try_from(power).ok()? + 1)
}
