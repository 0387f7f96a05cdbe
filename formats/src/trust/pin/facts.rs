//! What a header says, without what every write changes: the salts and the checksums of the copies
//! of a LUKS2 header, and where a copy is.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use sha2::{Digest as _, Sha256};

use super::hash::{Hash256, hex, unhex};
use crate::json::{Object, Value};
use crate::luks2::Keyslot;
use crate::version::Version;
use crate::{luks1, luks2};

/// The most characters of a name in a pin. The hash covers all of it.
const LONGEST_NAME: usize = 64;

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// The version of LUKS.
    pub version: Version,
    /// The UUID, as it is written in the header.
    pub uuid: String,
    /// The sequence number of a LUKS2 header. 0 in LUKS1.
    pub sequence: u64,
    /// The hash of all that the header says.
    pub whole: Hash256,
    /// The hashes of its parts, so that a difference can be told in words.
    pub parts: Vec<Part>,
}

/// A part of a header, or the key material of a keyslot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// Its number, if there are several of its kind.
    pub number: u32,
    /// Its type, or which setting it is.
    pub name: String,
    /// The hash of what it says.
    pub hash: Hash256,
}

/// What a part of a header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PartKind {
    /// A keyslot in use, without its key material.
    Keyslot,
    /// The key material of a keyslot in use.
    Material,
    /// A token.
    Token,
    /// The place and the cipher of the data, or of a part of them.
    Segment,
    /// What checks a key, without the list of its keyslots.
    Digest,
    /// Another part, which its name describes.
    Setting,
}

impl PartKind {
    const ALL: [Self; 6] = [
        Self::Keyslot,
        Self::Material,
        Self::Token,
        Self::Segment,
        Self::Digest,
        Self::Setting,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Keyslot => "keyslot",
            Self::Material => "material",
            Self::Token => "token",
            Self::Segment => "segment",
            Self::Digest => "digest",
            Self::Setting => "setting",
        }
    }
}

/// The key material of a keyslot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Material {
    /// The number of the keyslot.
    pub keyslot: u32,
    /// Where it is on the storage of the header, in bytes.
    pub area: Range<u64>,
}

impl Material {
    /// The areas of the keyslots in use that hold a key.
    #[must_use]
    pub fn of_luks1(header: &luks1::Header) -> Vec<Self> {
        let slots = (0_u32..).zip(&header.keyslots);
        let active = slots.filter(|(_, keyslot)| keyslot.active);
        let slot = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        active
            .map(|(keyslot, _)| Self {
                keyslot,
                area: header.area(slot(keyslot)),
            })
            .collect()
    }

    /// The areas of the keyslots in use that hold a key. A keyslot that describes a reencryption
    /// holds none: its area changes with each zone.
    #[must_use]
    pub fn of_luks2(header: &luks2::Header) -> Vec<Self> {
        let slots = header.metadata.keyslots().iter();
        let slots = slots.filter(|(_, keyslot)| keyslot.kind() != Keyslot::REENCRYPT);
        slots
            .map(|(keyslot, found)| Self {
                keyslot: *keyslot,
                area: found.area(),
            })
            .collect()
    }
}

impl Facts {
    /// What a LUKS1 header says, without the salt and the iterations of keyslots that are not in
    /// use.
    #[must_use]
    pub fn of_luks1(header: &luks1::Header) -> Self {
        let mut parts = Vec::new();
        let mut places = Vec::new();
        for (number, keyslot) in (0_u32..).zip(&header.keyslots) {
            let place = [keyslot.key_material_offset, keyslot.stripes].map(u32::to_be_bytes);
            places.extend(place.concat());
            if keyslot.active {
                let iterations = keyslot.iterations.to_be_bytes();
                let hash = hash(&[&iterations, &keyslot.salt]);
                parts.push(Part::new(PartKind::Keyslot, number, "luks1", hash));
            }
        }
        let numbers = [header.payload_offset, header.key_bytes].map(u32::to_be_bytes);
        let names = [&header.cipher_name, &header.cipher_mode, &header.hash_name];
        let [cipher, mode, hash_name] = names.map(|name| name.as_bytes());
        let data = hash(&[cipher, &[0], mode, &[0], hash_name, &[0], &numbers.concat()]);
        parts.push(Part::new(PartKind::Segment, 0, "crypt", data));
        let iterations = header.digest_iterations.to_be_bytes();
        let digest = hash(&[&header.digest, &header.digest_salt, &iterations]);
        parts.push(Part::new(PartKind::Digest, 0, "pbkdf2", digest));
        let uuid = hash(&[header.uuid.as_bytes()]);
        parts.push(Part::new(PartKind::Setting, 0, "the UUID", uuid));
        let places = hash(&[&places]);
        let name = "the place of key material";
        parts.push(Part::new(PartKind::Setting, 0, name, places));
        Self {
            version: Version::Luks1,
            uuid: header.uuid.clone(),
            sequence: 0,
            whole: whole(&parts),
            parts,
        }
    }

    /// What a copy of a LUKS2 header says.
    #[must_use]
    pub fn of_luks2(header: &luks2::Header) -> Self {
        let json = header.json();
        let mut parts = Vec::new();
        let lists = [
            ("keyslots", PartKind::Keyslot),
            ("tokens", PartKind::Token),
            ("segments", PartKind::Segment),
            ("digests", PartKind::Digest),
        ];
        for (list, kind) in lists {
            let members = json.get(list).and_then(Value::as_object);
            for (number, member) in members.into_iter().flat_map(Object::iter) {
                let Ok(number) = number.parse() else {
                    continue;
                };
                let name = member.get("type").and_then(Value::as_str);
                let mut said = member.clone();
                if let (PartKind::Digest, Some(members)) = (kind, said.as_object_mut()) {
                    members.remove("keyslots");
                }
                let hash = hash(&[said.to_string().as_bytes()]);
                parts.push(Part::new(kind, number, name.unwrap_or_default(), hash));
            }
        }
        let config = json.get("config").map(Value::to_string).unwrap_or_default();
        let sizes = header.hdr_size.to_be_bytes();
        let settings: [(&str, &[&[u8]]); 4] = [
            ("the UUID", &[header.uuid.as_bytes()]),
            ("the label", &[header.label.as_bytes()]),
            ("the subsystem", &[header.subsystem.as_bytes()]),
            (
                "the configuration (sizes, flags, requirements)",
                &[
                    &sizes,
                    header.checksum.name().as_bytes(),
                    &[0],
                    config.as_bytes(),
                ],
            ),
        ];
        for (name, said) in settings {
            parts.push(Part::new(PartKind::Setting, 0, name, hash(said)));
        }
        let text = json.to_string();
        let header_parts = whole(&parts);
        Self {
            version: Version::Luks2,
            uuid: header.uuid.clone(),
            sequence: header.seqid,
            whole: hash(&[&header_parts, text.as_bytes()]),
            parts,
        }
    }

    /// The same with the hashes of key material.
    #[must_use]
    pub fn with_material(mut self, material: impl IntoIterator<Item = (u32, Hash256)>) -> Self {
        let material = material.into_iter();
        self.parts
            .extend(material.map(|(slot, hash)| Part::new(PartKind::Material, slot, "", hash)));
        self
    }

    /// The same without the hashes of key material.
    #[must_use]
    pub fn without_material(&self) -> Self {
        let mut header = self.clone();
        header.parts.retain(|part| part.kind != PartKind::Material);
        header
    }

    /// The part of this kind and number with this name, which of other kinds than settings is its
    /// type.
    #[must_use]
    pub fn part(&self, kind: PartKind, number: u32, name: &str) -> Option<&Part> {
        let is_setting = kind == PartKind::Setting;
        self.parts.iter().find(|part| {
            part.kind == kind && part.number == number && (!is_setting || part.name == name)
        })
    }

    /// Whether a header of LUKS1 can be one that is written over `current` with `next`, sector by
    /// sector: each of its parts is as in one of the two.
    pub(super) fn is_between(&self, current: &Self, next: &Self) -> bool {
        let all = [self, current, next];
        if all.iter().any(|facts| facts.version != Version::Luks1) {
            return false;
        }
        let mut parts = all.iter().flat_map(|facts| &facts.parts);
        parts.all(|part| {
            let of = |facts: &Self| {
                let found = facts.part(part.kind, part.number, &part.name);
                found.map(|part| part.hash)
            };
            let found = of(self);
            found == of(current) || found == of(next)
        })
    }

    pub(super) fn to_json(&self) -> Value {
        let mut members = Object::new();
        members.insert(
            "luks",
            u64::from(self.version == Version::Luks2).saturating_add(1),
        );
        members.insert("uuid", self.uuid.as_str());
        members.insert("sequence", self.sequence);
        members.insert("whole", hex(&self.whole));
        let parts: Vec<Value> = self.parts.iter().map(Part::to_json).collect();
        members.insert("parts", parts);
        members.into()
    }

    pub(super) fn read(value: &Value) -> Option<Self> {
        let parts = value.get("parts")?.as_array()?.iter().map(Part::read);
        Some(Self {
            version: match value.get("luks")?.as_u64()? {
                1 => Version::Luks1,
                2 => Version::Luks2,
                _ => return None,
            },
            uuid: value.get("uuid")?.as_str()?.to_string(),
            sequence: value.get("sequence")?.as_u64()?,
            whole: unhex(value.get("whole")?.as_str()?)?,
            parts: parts.collect::<Option<_>>()?,
        })
    }
}

impl Part {
    fn new(kind: PartKind, number: u32, name: &str, hash: Hash256) -> Self {
        let name = name.chars().take(LONGEST_NAME).collect();
        Self {
            kind,
            number,
            name,
            hash,
        }
    }

    fn to_json(&self) -> Value {
        let (name, hash) = (self.name.as_str(), hex(&self.hash));
        [
            Value::from(self.kind.name()),
            self.number.into(),
            name.into(),
            hash.into(),
        ]
        .into()
    }

    fn read(value: &Value) -> Option<Self> {
        let [kind, number, name, hash] = value.as_array()?.as_slice() else {
            return None;
        };
        let kind = kind.as_str()?;
        Some(Self {
            kind: PartKind::ALL.into_iter().find(|all| all.name() == kind)?,
            number: u32::try_from(number.as_u64()?).ok()?,
            name: name.as_str()?.to_string(),
            hash: unhex(hash.as_str()?)?,
        })
    }
}

fn whole(parts: &[Part]) -> Hash256 {
    let mut all = Sha256::new();
    for part in parts {
        all.update(part.kind.name());
        all.update(part.number.to_be_bytes());
        all.update(part.hash);
    }
    all.finalize().into()
}

fn hash(said: &[&[u8]]) -> Hash256 {
    let mut all = Sha256::new();
    for said in said {
        all.update(said);
    }
    all.finalize().into()
}
