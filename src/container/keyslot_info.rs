//! Keyslots in one form for both versions, for code that unlocks and lists them.

use std::ops::Range;

use luksmith_formats::luks2::{Digest, Kdf, Keyslot, Luks2Keyslot, Priority};
use luksmith_formats::{CipherSpec, FormatError, Hash, luks1, luks2};

use super::{Container, Header};

/// A keyslot in use, in the same form for both versions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyslotInfo {
    /// The number.
    pub slot: u32,
    /// The size of the key in the keyslot, in bytes.
    pub key_size: usize,
    /// The priority, which says when the keyslot is tried.
    pub priority: Priority,
    /// Whether the key is the volume key. False for an unbound keyslot.
    pub bound: bool,
    /// The range of the key material on the storage of the header, in bytes.
    pub area: Range<u64>,
    /// How the key is encrypted, or why this keyslot cannot be used: something in it is not
    /// supported.
    pub sealing: Result<Sealing, FormatError>,
}

/// How a keyslot encrypts its key.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sealing {
    /// The KDF that derives the key of the area from the passphrase.
    pub kdf: Kdf,
    /// The cipher of the key material.
    pub cipher: CipherSpec,
    /// The size of the key of that cipher, in bytes.
    pub cipher_key_size: usize,
    /// The hash of the anti-forensic splitter.
    pub af_hash: Hash,
    /// The number of stripes of the anti-forensic splitter.
    pub stripes: u32,
}

impl Container {
    /// The keyslots in use, by number. LUKS2 keyslots that only describe a reencryption are left
    /// out.
    #[must_use]
    pub fn keyslots(&self) -> Vec<KeyslotInfo> {
        self.header.keyslots()
    }

    pub(super) fn keyslot(&self, slot: u32) -> Option<KeyslotInfo> {
        self.keyslots()
            .into_iter()
            .find(|keyslot| keyslot.slot == slot)
    }

    /// The size of the volume key in bytes. `None` if no keyslot is left that states it.
    #[must_use]
    pub fn volume_key_size(&self) -> Option<usize> {
        match &self.header {
            Header::Luks1(header) => usize::try_from(header.key_bytes).ok(),
            Header::Luks2(_) => self
                .keyslots()
                .into_iter()
                .find(|slot| slot.bound)
                .map(|slot| slot.key_size),
        }
    }

    /// The number of the digest of the volume key. `None` in LUKS1, or if it cannot be computed.
    #[must_use]
    pub fn volume_digest_id(&self) -> Option<u32> {
        match &self.header {
            Header::Luks1(_) => None,
            Header::Luks2(header) => volume_digest(header).map(|(id, _)| id),
        }
    }
}

impl Header {
    /// As [`Container::keyslots`].
    pub(super) fn keyslots(&self) -> Vec<KeyslotInfo> {
        match self {
            Self::Luks1(header) => luks1(header),
            Self::Luks2(header) => luks2(header),
        }
    }
}

/// The active keyslots of a LUKS1 header.
pub(super) fn luks1(header: &luks1::Header) -> Vec<KeyslotInfo> {
    let active = (0..luks1::KEYSLOTS).filter(|&index| header.keyslots[index].active);
    active
        .map(|index| KeyslotInfo {
            slot: u32::try_from(index).unwrap_or(u32::MAX),
            key_size: header.key_bytes as usize,
            priority: Priority::Normal,
            bound: true,
            area: header.area(index),
            sealing: luks1_sealing(header, index),
        })
        .collect()
}

pub(super) fn luks1_sealing(header: &luks1::Header, index: usize) -> Result<Sealing, FormatError> {
    header.check_keyslot(index)?;
    let keyslot = &header.keyslots[index];
    let hash = header.hash()?;
    Ok(Sealing {
        kdf: Kdf::Pbkdf2 {
            hash,
            iterations: keyslot.iterations,
            salt: keyslot.salt.to_vec(),
        },
        cipher: header.cipher()?,
        cipher_key_size: header.key_bytes as usize,
        af_hash: hash,
        stripes: keyslot.stripes,
    })
}

/// The keyslots of a LUKS2 header that hold a key.
pub(super) fn luks2(header: &luks2::Header) -> Vec<KeyslotInfo> {
    let segment = header.metadata.key_segment();
    let bound = |slot| segment.is_some_and(|id| header.metadata.belong_together(slot, id));
    let keyslots = header.metadata.keyslots().iter();
    let info = |(&slot, keyslot): (&u32, &Keyslot)| {
        let (key_size, priority, sealing) = match keyslot {
            Keyslot::Luks2(keyslot) => {
                let sealing = Ok(luks2_sealing(keyslot));
                (keyslot.key_size, keyslot.priority, sealing)
            }
            Keyslot::Other(other) if keyslot.kind() == Keyslot::LUKS2 => {
                let why = other.why.clone()?;
                (other.key_size, other.priority, Err(why))
            }
            Keyslot::Reencrypt(_) | Keyslot::Other(_) => return None,
        };
        Some(KeyslotInfo {
            slot,
            key_size: key_size as usize,
            priority,
            bound: bound(slot),
            area: keyslot.area(),
            sealing,
        })
    };
    keyslots.filter_map(info).collect()
}

pub(super) fn luks2_sealing(keyslot: &Luks2Keyslot) -> Sealing {
    Sealing {
        kdf: keyslot.kdf.clone(),
        cipher: keyslot.area.encryption,
        cipher_key_size: keyslot.area.key_size as usize,
        af_hash: keyslot.af.hash,
        stripes: keyslot.af.stripes,
    }
}

/// The digest of the volume key, which the data segment names, if it can be computed.
pub(super) fn volume_digest(header: &luks2::Header) -> Option<(u32, &Digest)> {
    header
        .metadata
        .digest_of_segment(header.metadata.key_segment()?)
}
