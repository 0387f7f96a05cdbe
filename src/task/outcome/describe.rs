//! The header of an image, with its keyslots and tokens, for programs.

use luksmith_formats::json::{Object, Value, json};
use luksmith_formats::luks2::{Kdf, Progress};

use super::names;
use crate::backend::Backend as _;
use crate::container::{Container, Header, KeyslotInfo, VolumeError};
use crate::task::chain;
use crate::task::open::{Image, ImageFormat};
use crate::task::reencrypt;
use crate::task::storage::Storage;

/// The header of an image.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Described<'a> {
    /// Where the volume is stored.
    pub image: &'a Image,
    /// Its header.
    pub container: &'a Container,
    /// The storage of its data.
    pub data: &'a Storage,
    /// The size of the plaintext in bytes, if it is known.
    pub size: Option<u64>,
    /// Whether the header is stored elsewhere than the data.
    pub detached: bool,
}

impl<'a> Described<'a> {
    /// A header, and the storage of its data.
    #[must_use]
    pub fn new(image: &'a Image, container: &'a Container, data: &'a Storage) -> Self {
        let begins = || match container.authenticated_segment() {
            Some(segment) => segment.offset == 0,
            None => container.data_segment().is_ok_and(|data| data.offset == 0),
        };
        Self {
            image,
            container,
            data,
            size: image.data_size(container, data),
            detached: image.header.is_some() || image.format == ImageFormat::Raw && begins(),
        }
    }

    /// All that the header says.
    #[must_use]
    pub fn members(&self) -> Object {
        let container = self.container;
        let luks2 = match container.header() {
            Header::Luks1(_) => None,
            Header::Luks2(header) => Some(header),
        };
        let raw = self.data.qcow2_header.is_none();
        let segment = container.data_segment().ok();
        let storage_size = self.data.backend.geometry().size;
        let left_out = segment
            .filter(|_| self.size.is_some() && raw)
            .map(|segment| segment.left_out(storage_size));
        let health = container.health();
        let area = luks2.map(|header| header.metadata.keyslots_area());
        let not_supported = container.not_supported();
        let flags = luks2.map(|header| header.metadata.config().flags.clone());

        let mut members = Object::new();
        names::image(&mut members, &self.image.location);
        members.insert("format", if raw { "raw" } else { "qcow2" });
        members.insert("type", names::type_name(container.version()));
        members.insert("uuid", container.uuid());
        members.insert("label", luks2.map(|header| header.label.as_str()));
        members.insert("subsystem", luks2.map(|header| header.subsystem.as_str()));
        let tagged = container.authenticated_segment();
        let cipher = segment.map(|segment| segment.cipher.to_string());
        let cipher = cipher.or_else(|| Some(tagged?.encryption.encryption().to_owned()));
        members.insert("cipher", cipher);
        members.insert(
            "key_bits",
            container.volume_key_size().map(|bytes| bytes * 8),
        );
        let sector_size = segment.map(|segment| segment.sector_size);
        let sector_size = sector_size.or_else(|| Some(tagged?.sector_size));
        members.insert("sector_size", sector_size);
        members.insert("size", self.size);
        let data = json!({
            // In a qcow2 image the header does not say where the data is.
            "offset": segment
                .filter(|_| raw)
                .map(|segment| segment.offset)
                .or_else(|| Some(tagged?.offset)),
            "left_out": left_out,
            "fixed_size": segment.is_some_and(|segment| segment.fixed_size.is_some()),
        });
        members.insert("data", data);
        members.insert("integrity", self.integrity());
        let header = json!({
            "health": health.name(),
            "damage": health.damage().map(|error| chain(error)),
            "detached": self.detached,
            "metadata_size": luks2.map(|header| header.hdr_size),
            "keyslots_offset": area.as_ref().map(|area| area.start),
            "keyslots_size": area.as_ref().map(|area| area.end - area.start),
            "seqid": luks2.map(|header| header.seqid),
        });
        members.insert("header", header);
        members.insert("requirements", container.requirements());
        members.insert("reencryption", self.reencryption());
        let not_supported: Value = not_supported.iter().map(ToString::to_string).collect();
        members.insert("not_supported", not_supported);
        members.insert("flags", flags.unwrap_or_default());
        members.insert("keyslots", keyslots(&container.keyslots()));
        members.insert("tokens", tokens(container));
        members.insert("qcow2", names::qcow2(self.data.qcow2_header.as_deref()));
        members
    }

    /// The tags of the data, if it has some.
    fn integrity(&self) -> Option<Value> {
        let segment = self.container.authenticated_segment()?;
        Some(json!({
            "type": segment.encryption.integrity(),
            "tag_size": segment.encryption.tag_size(),
            "problem": self.integrity_problem().map(|error| chain(&error)),
        }))
    }

    /// Why the data cannot be read, if it has tags and its storage is known.
    pub(super) fn integrity_problem(&self) -> Option<VolumeError> {
        let is_elsewhere = self.image.header.is_none() && self.detached;
        let data = &*self.data.backend;
        let checked = (!is_elsewhere).then(|| self.container.check_integrity(data));
        checked.and_then(Result::err)
    }

    /// The reencryption in progress, if it is a supported one.
    fn reencryption(&self) -> Option<Value> {
        let found = self.container.reencryption().ok()??;
        let size = reencrypt::data_size(&found, &*self.data.backend);
        Some(json!({
            "cipher": found.following.encryption.to_string(),
            "sector_size": found.following.sector_size,
            "resilience": found.state.resilience.name(),
            "converted": reencrypt::converted(&found, size),
            "size": size,
            "hot": matches!(found.progress, Progress::Hot { .. }),
            "plaintext": found.is_encryption(),
        }))
    }
}

/// The member `keyslots`: all of them, with their costs and areas. Sizes are in bytes.
#[must_use]
pub fn keyslots(slots: &[KeyslotInfo]) -> Value {
    slots.iter().map(keyslot).collect()
}

fn keyslot(slot: &KeyslotInfo) -> Value {
    let sealing = slot.sealing.as_ref().ok();
    json!({
        "keyslot": slot.slot,
        "bound": slot.bound,
        "priority": names::priority(slot.priority),
        "key_bits": slot.key_size * 8,
        "kdf": sealing.map(|sealing| kdf(&sealing.kdf)),
        "area": {
            "offset": slot.area.start,
            "size": slot.area.end - slot.area.start,
            "cipher": sealing.map(|sealing| sealing.cipher.to_string()),
            "key_bits": sealing.map(|sealing| sealing.cipher_key_size * 8),
        },
        "af": sealing.map(|sealing| {
            json!({ "hash": sealing.af_hash.name(), "stripes": sealing.stripes })
        }),
        "not_supported": slot.sealing.as_ref().err().map(ToString::to_string),
    })
}

fn kdf(kdf: &Kdf) -> Value {
    match kdf {
        Kdf::Pbkdf2 {
            hash, iterations, ..
        } => json!({
            "type": "pbkdf2",
            "hash": hash.name(),
            "iterations": iterations,
            "passes": null,
            "memory": null,
            "threads": null,
        }),
        Kdf::Argon2 {
            variant,
            passes,
            memory_kib,
            lanes,
            ..
        } => json!({
            "type": variant.name(),
            "hash": null,
            "iterations": null,
            "passes": passes,
            "memory": u64::from(*memory_kib) * 1024,
            "threads": lanes,
        }),
    }
}

/// The member `tokens`: their numbers, types and keyslots.
#[must_use]
pub fn tokens(container: &Container) -> Value {
    let Header::Luks2(header) = container.header() else {
        return json!([]);
    };
    let tokens = header.metadata.tokens().iter();
    tokens
        .map(|(id, token)| json!({ "token": id, "type": token.kind, "keyslots": token.keyslots }))
        .collect()
}
