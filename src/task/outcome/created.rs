//! A volume that `create` or `encrypt` made.

use std::fmt;

use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::json::{Object, Value, json};

use super::Outcome;
use super::copied::Copied;
use super::names;
use crate::container::Version;
use crate::location::Location;
use crate::task::new_volume::Made;
use crate::task::openers::{Opener, QemuObstacle};
use crate::task::{Error, size};

/// A volume that was made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Created {
    /// Where it is stored.
    pub image: Location,
    /// The version of LUKS.
    pub version: Version,
    /// The UUID in its header.
    pub uuid: String,
    /// The cipher of the data.
    pub cipher: Option<CipherSpec>,
    /// The size of the volume key in bits.
    pub key_bits: usize,
    /// The size of a sector in bytes.
    pub sector_size: u32,
    /// The size of the plaintext in bytes.
    pub size: u64,
    /// Where the data begins on the storage. `None` in a qcow2 image.
    pub offset: Option<u64>,
    /// The keyslot of its passphrase.
    pub keyslot: Option<u32>,
    /// What was encrypted into it.
    pub copied: Option<Copied>,
    /// The programs that open it.
    pub openers: Vec<Opener>,
    /// Why QEMU's own driver does not open it.
    pub qemu_obstacle: Option<QemuObstacle>,
    qcow2: Value,
}

impl Created {
    /// The properties of a volume that was made at a location.
    ///
    /// # Errors
    /// As [`Made::size`].
    pub fn of(made: &Made<'_>, image: &Location) -> Result<Self, Error> {
        let container = &made.container;
        let segment = container.data_segment().ok();
        let raw = made.data.qcow2_header.is_none();
        Ok(Self {
            image: image.clone(),
            version: container.version(),
            uuid: container.uuid().to_owned(),
            cipher: segment.map(|segment| segment.cipher),
            key_bits: made.unlocked.key().as_bytes().len() * 8,
            sector_size: segment.map_or(512, |segment| segment.sector_size),
            size: made.size()?,
            offset: segment.filter(|_| raw).map(|segment| segment.offset),
            keyslot: made.unlocked.slot(),
            copied: None,
            openers: made.openers(),
            qemu_obstacle: made.qemu_obstacle(),
            qcow2: names::qcow2(made.data.qcow2_header.as_deref()),
        })
    }
}

impl Outcome for Created {
    fn members(&self) -> Object {
        let mut members = Object::new();
        names::image(&mut members, &self.image);
        let format = if self.qcow2.is_null() { "raw" } else { "qcow2" };
        members.insert("format", format);
        members.insert("type", names::type_name(self.version));
        members.insert("uuid", self.uuid.as_str());
        members.insert("cipher", self.cipher.map(|cipher| cipher.to_string()));
        members.insert("key_bits", self.key_bits);
        members.insert("sector_size", self.sector_size);
        members.insert("size", self.size);
        members.insert("data", json!({ "offset": self.offset }));
        members.insert("keyslot", self.keyslot);
        let openers: Value = self.openers.iter().map(ToString::to_string).collect();
        members.insert("opened_by", openers);
        members.insert("qcow2", self.qcow2.clone());
        members.insert("copied", self.copied.map(|copied| copied.json()));
        members
    }
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} volume of {}, {}-byte sectors, UUID {}",
            self.image,
            self.version,
            size::both(self.size),
            self.sector_size,
            self.uuid
        )?;
        match &self.copied {
            Some(copied) => write!(f, "; encrypted {copied}"),
            None => Ok(()),
        }
    }
}
