//! Keyslots in one form for both versions, for code that unlocks and lists them.

use std::ops::Range;

use luksmith_formats::luks2::{Digest, Kdf, Luks2Keyslot, Priority};
use luksmith_formats::{CipherSpec, FormatError, Hash, luks1, luks2};

use super::{Container, Header};

/// A keyslot in use, in the same form for both versions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyslotInfo {
    /// The number.
    pub slot: u32,
    /// The KDF that derives the key of the area from the passphrase.
    pub kdf: Kdf,
    /// The size of the key in the keyslot, in bytes.
    pub key_size: usize,
    /// The priority, which says when the keyslot is tried.
    pub priority: Priority,
    /// Whether the key is the volume key. False for an unbound keyslot.
    pub bound: bool,
    /// The range of the key material on the storage of the header, in bytes.
    pub area: Range<u64>,
    /// The cipher of the key material.
    pub area_cipher: CipherSpec,
    /// The size of the key of that cipher, in bytes.
    pub area_key_size: usize,
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
        match &self.header {
            Header::Luks1(header) => luks1(header),
            Header::Luks2(header) => luks2(header),
        }
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
}

/// The active keyslots of a LUKS1 header.
pub(super) fn luks1(header: &luks1::Header) -> Vec<KeyslotInfo> {
    let active = (0..luks1::KEYSLOTS).filter(|&index| header.keyslots[index].active);
    // The names in a validated header are known.
    active
        .filter_map(|index| luks1_keyslot(header, index).ok())
        .collect()
}

pub(super) fn luks1_keyslot(
    header: &luks1::Header,
    index: usize,
) -> Result<KeyslotInfo, FormatError> {
    let keyslot = &header.keyslots[index];
    let key_size = header.key_bytes as usize;
    let hash = header.hash()?;
    Ok(KeyslotInfo {
        slot: u32::try_from(index).unwrap_or(u32::MAX),
        kdf: Kdf::Pbkdf2 {
            hash,
            iterations: keyslot.iterations,
            salt: keyslot.salt.to_vec(),
        },
        key_size,
        priority: Priority::Normal,
        bound: true,
        area: header.area(index),
        area_cipher: header.cipher()?,
        area_key_size: key_size,
        af_hash: hash,
        stripes: keyslot.stripes,
    })
}

/// The keyslots of a LUKS2 header that hold a key.
pub(super) fn luks2(header: &luks2::Header) -> Vec<KeyslotInfo> {
    let keyslots = header.metadata.keyslots().iter();
    keyslots
        .filter_map(|(slot, keyslot)| Some(luks2_keyslot(header, *slot, keyslot.as_luks2()?)))
        .collect()
}

pub(super) fn luks2_keyslot(
    header: &luks2::Header,
    slot: u32,
    keyslot: &Luks2Keyslot,
) -> KeyslotInfo {
    KeyslotInfo {
        slot,
        kdf: keyslot.kdf.clone(),
        key_size: keyslot.key_size as usize,
        priority: keyslot.priority,
        bound: volume_digest(header).is_some_and(|(_, digest)| digest.keyslots.contains(&slot)),
        area: keyslot.area.range(),
        area_cipher: keyslot.area.encryption,
        area_key_size: keyslot.area.key_size as usize,
        af_hash: keyslot.af.hash,
        stripes: keyslot.af.stripes,
    }
}

/// The digest of the volume key, which the data segment names.
pub(super) fn volume_digest(header: &luks2::Header) -> Option<(u32, &Digest)> {
    let (segment, _) = header.metadata.data_segments().next()?;
    header.metadata.digest_of_segment(segment)
}
