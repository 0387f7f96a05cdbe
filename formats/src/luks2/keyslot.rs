//! Keyslots (section 3.2): the place of the encrypted volume key, and how a passphrase decrypts it.
//!
//! A keyslot of unknown type is kept, and its area is not used for anything else, as the
//! specification requires. So is a `luks2` keyslot with an unknown KDF, splitter, area or cipher.

use alloc::format;
use alloc::string::{String, ToString};
use core::ops::Range;

use crate::json::{Object, Value};

use super::kdf::Kdf;
use super::node::{Node, excerpt, put_cipher, put_hash, within};
use super::reencrypt::ReencryptKeyslot;
use super::{ALIGNMENT, STRIPES};
use crate::cipher::CipherSpec;
use crate::error::FormatError;
use crate::hash::Hash;

/// A keyslot of any type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keyslot {
    /// Holds a key that is encrypted with a passphrase.
    Luks2(Luks2Keyslot),
    /// Holds the state of a reencryption.
    Reencrypt(ReencryptKeyslot),
    /// A keyslot of unknown type, or one that cannot be used. It is never changed.
    Other(OtherKeyslot),
}

/// A keyslot of type `luks2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Luks2Keyslot {
    /// The length of the key in bytes.
    pub key_size: u32,
    /// The priority, which says when the keyslot is tried.
    pub priority: Priority,
    /// The place and the cipher of the key material.
    pub area: Area,
    /// The KDF that derives the key of the area from the passphrase.
    pub kdf: Kdf,
    /// The anti-forensic splitter.
    pub af: Af,
}

/// The area of a `luks2` keyslot (type `raw`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// The start in bytes.
    pub offset: u64,
    /// The length in bytes.
    pub size: u64,
    /// The cipher of the key material.
    pub encryption: CipherSpec,
    /// The length of the key of that cipher, in bytes.
    pub key_size: u32,
}

/// The anti-forensic splitter (type `luks1`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Af {
    /// The number of stripes, 4000.
    pub stripes: u32,
    /// The hash of the splitter, which is independent of the hash of the KDF.
    pub hash: Hash,
}

/// A keyslot of unknown type, or one that has something which this crate does not support.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtherKeyslot {
    /// The type.
    pub kind: String,
    /// The length of the key in bytes, as it is stated.
    pub key_size: u32,
    /// The priority.
    pub priority: Priority,
    /// The range of the area in bytes.
    pub area: Range<u64>,
    /// Why a keyslot of a known type cannot be used. `None` for an unknown type.
    pub why: Option<FormatError>,
}

/// The priority of a keyslot, which says when it is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Only if the user names it.
    Ignore,
    /// After those with priority prefer. A header stores this as a missing member.
    #[default]
    Normal,
    /// Before all others.
    Prefer,
}

impl Keyslot {
    /// The type of a keyslot that holds a key.
    pub const LUKS2: &str = "luks2";
    /// The type of a keyslot that holds the state of a reencryption.
    pub const REENCRYPT: &str = "reencrypt";

    /// The area in bytes.
    pub fn area(&self) -> Range<u64> {
        match self {
            Self::Luks2(keyslot) => keyslot.area.range(),
            Self::Reencrypt(keyslot) => keyslot.area.clone(),
            Self::Other(keyslot) => keyslot.area.clone(),
        }
    }

    /// The keyslot, if it holds a key.
    pub fn as_luks2(&self) -> Option<&Luks2Keyslot> {
        match self {
            Self::Luks2(keyslot) => Some(keyslot),
            Self::Reencrypt(_) | Self::Other(_) => None,
        }
    }

    /// The type, as it is written in headers.
    pub fn kind(&self) -> &str {
        match self {
            Self::Luks2(_) => Self::LUKS2,
            Self::Reencrypt(_) => Self::REENCRYPT,
            Self::Other(keyslot) => &keyslot.kind,
        }
    }

    /// Why the keyslot cannot be used, if its type is known.
    pub fn why(&self) -> Option<&FormatError> {
        match self {
            Self::Luks2(_) | Self::Reencrypt(_) => None,
            Self::Other(keyslot) => keyslot.why.as_ref(),
        }
    }

    pub(super) fn why_mut(&mut self) -> Option<&mut FormatError> {
        match self {
            Self::Luks2(_) | Self::Reencrypt(_) => None,
            Self::Other(keyslot) => keyslot.why.as_mut(),
        }
    }

    /// Reads a keyslot. The members that every keyslot has are required.
    pub(super) fn read(node: &Node<'_>) -> Result<Self, FormatError> {
        let kind = node.member("type")?.string()?;
        let key_size = node.member("key_size")?.u32()?;
        let area_node = node.member("area")?;
        let area = area_node.range()?;
        area_node.member("type")?.string()?;
        let priority = Priority::read(node)?;
        let known = match kind {
            Self::LUKS2 => Luks2Keyslot::read(node, priority, &area_node, &area).map(Self::Luks2),
            Self::REENCRYPT => {
                ReencryptKeyslot::read(node, &area_node, area.clone()).map(Self::Reencrypt)
            }
            other => {
                return Ok(Self::Other(OtherKeyslot {
                    kind: other.to_string(),
                    key_size,
                    priority,
                    area,
                    why: None,
                }));
            }
        };
        Ok(known.unwrap_or_else(|why| {
            Self::Other(OtherKeyslot {
                kind: kind.to_string(),
                key_size,
                priority,
                area,
                why: Some(why),
            })
        }))
    }

    /// Overwrites the known members of `object`. The others stay.
    pub(super) fn write(&self, object: &mut Object) {
        match self {
            Self::Luks2(keyslot) => keyslot.write(object),
            Self::Reencrypt(keyslot) => keyslot.write(object),
            // Such a keyslot was read from a header, and has no members that could be changed.
            Self::Other(_) => {}
        }
    }
}

impl Luks2Keyslot {
    /// The length of an area for a key of this size: 4000 stripes, in whole 4096-byte blocks.
    pub fn area_size(key_size: u32) -> u64 {
        u64::from(key_size)
            .saturating_mul(u64::from(STRIPES))
            .next_multiple_of(ALIGNMENT)
    }

    fn read(
        node: &Node<'_>,
        priority: Priority,
        area_node: &Node<'_>,
        range: &Range<u64>,
    ) -> Result<Self, FormatError> {
        let key_size = node.member("key_size")?.positive()?;
        let area = Area::read(area_node, range)?;
        let af = Af::read(&node.member("af")?)?;
        let needed = material_size(key_size).unwrap_or(u64::MAX);
        if area.size < needed {
            let size = area_node.member("size")?;
            return Err(size.malformed(format!(
                "the area has {} bytes; a key of {key_size} bytes needs {needed}",
                area.size
            )));
        }
        Ok(Self {
            key_size,
            priority,
            area,
            kdf: Kdf::read(&node.member("kdf")?)?,
            af,
        })
    }

    fn write(&self, object: &mut Object) {
        object.insert("type", Keyslot::LUKS2);
        object.insert("key_size", self.key_size);
        within(object, "af", |af| {
            af.insert("type", "luks1");
            af.insert("stripes", self.af.stripes);
            put_hash(af, "hash", self.af.hash);
        });
        within(object, "area", |area| {
            area.insert("type", "raw");
            area.insert("offset", self.area.offset.to_string());
            area.insert("size", self.area.size.to_string());
            put_cipher(area, "encryption", self.area.encryption);
            area.insert("key_size", self.area.key_size);
        });
        self.kdf.write(object);
        self.priority.write(object);
    }
}

impl Area {
    /// The area in bytes.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.size)
    }

    fn read(node: &Node<'_>, range: &Range<u64>) -> Result<Self, FormatError> {
        let kind = node.member("type")?;
        if kind.string()? != "raw" {
            return Err(kind.unsupported(format!(
                "unknown area {}; known is raw",
                excerpt(kind.string()?)
            )));
        }
        let encryption = node.member("encryption")?.cipher()?;
        let key_size = node.member("key_size")?;
        let bytes = key_size.positive()?;
        encryption
            .check_key_size(usize::try_from(bytes).unwrap_or(usize::MAX))
            .map_err(|refusal| key_size.malformed(refusal.to_string()))?;
        let size = range.end.saturating_sub(range.start);
        Ok(Self {
            offset: range.start,
            size,
            encryption,
            key_size: bytes,
        })
    }
}

impl Af {
    fn read(node: &Node<'_>) -> Result<Self, FormatError> {
        let kind = node.member("type")?;
        if kind.string()? != "luks1" {
            return Err(kind.unsupported(format!(
                "unknown splitter {}; known is luks1",
                excerpt(kind.string()?)
            )));
        }
        let stripes = node.member("stripes")?;
        if stripes.u32()? != STRIPES {
            return Err(stripes.malformed(format!("is {}, not {STRIPES}", stripes.u32()?)));
        }
        Ok(Self {
            stripes: STRIPES,
            hash: node.member("hash")?.hash()?,
        })
    }
}

impl Priority {
    fn read(keyslot: &Node<'_>) -> Result<Self, FormatError> {
        let member = keyslot.object()?.get("priority");
        Ok(member.map_or(Self::Normal, Self::of))
    }

    /// As cryptsetup reads a priority: a number in quotes counts, and a keyslot of unknown priority
    /// is only tried if the user names it.
    fn of(member: &Value) -> Self {
        let quoted = || member.as_str()?.parse().ok();
        match member.as_u64().or_else(quoted) {
            Some(1) => Self::Normal,
            Some(2) => Self::Prefer,
            Some(_) | None => Self::Ignore,
        }
    }

    /// Sets the priority. If the present member means the same, it is kept.
    pub(super) fn write(self, keyslot: &mut Object) {
        if keyslot.get("priority").map(Self::of) == Some(self) {
            return;
        }
        match self {
            Self::Ignore => keyslot.insert("priority", 0),
            Self::Normal => {
                keyslot.remove("priority");
            }
            Self::Prefer => keyslot.insert("priority", 2),
        }
    }
}

/// The length of the split key, in whole 512-byte sectors.
fn material_size(key_size: u32) -> Option<u64> {
    u64::from(key_size)
        .checked_mul(u64::from(STRIPES))?
        .checked_next_multiple_of(512)
}
