//! Key material: splits a key into stripes and encrypts them for a keyslot area, and the reverse.
//!
//! References: LUKS1 On-Disk Format 1.2.3, sections 2.4 (anti-forensic splitter) and 4; LUKS2
//! On-Disk Format 1.1, section 3.2. An area is encrypted in 512-byte sectors whose IVs count from
//! 0. Split keys are only in locked memory.

use luksmith_formats::Limits;

use super::{KeyslotError, KeyslotInfo, UnlockError};
use crate::Interrupt;
use crate::backend::Backend;
use crate::crypt::{self, SectorCrypt};
use crate::door;
use crate::kdf::{self, KdfError};
use crate::secret::{LockedBytes, Passphrase, VolumeKey};

const SECTOR: usize = 512;

/// The bytes of the area of `slot` that hold `key`, which `passphrase` opens.
pub(super) fn seal(
    key: &VolumeKey,
    passphrase: &Passphrase,
    slot: &KeyslotInfo,
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<Vec<u8>, KeyslotError> {
    crypt::check_built(slot.area_cipher.cipher)?;
    kdf::check_built(slot.af_hash)?;
    // New keyslots have to be within the limits too. Otherwise they would not open without raising
    // them.
    let derived = kdf::derive(&slot.kdf, passphrase, slot.area_key_size, limits, interrupt)?;
    let crypt = SectorCrypt::for_keyslot(slot.area_cipher, &derived)?;
    let split = kdf::af::split(key.as_bytes(), slot.stripes, slot.af_hash)?;
    let mut material = LockedBytes::new(split.len().next_multiple_of(SECTOR))?;
    material[..split.len()].copy_from_slice(&split);
    drop(split);
    crypt.encrypt_material(&mut material);
    Ok(material.to_vec())
}

/// The key that `passphrase` gives in `slot`. It is not verified: for a wrong passphrase it is
/// wrong.
pub(super) fn unseal(
    storage: &dyn Backend,
    slot: &KeyslotInfo,
    passphrase: &Passphrase,
    limits: &luksmith_formats::Limits,
    interrupt: &Interrupt,
) -> Result<VolumeKey, UnlockError> {
    let refused = |source: KdfError| UnlockError::Kdf {
        slot: slot.slot,
        source,
    };
    // Checked before any work.
    crypt::check_built(slot.area_cipher.cipher)?;
    kdf::check_built(slot.af_hash).map_err(refused)?;
    let derived = kdf::derive(&slot.kdf, passphrase, slot.area_key_size, limits, interrupt)
        .map_err(refused)?;
    let crypt = SectorCrypt::for_keyslot(slot.area_cipher, &derived)?;
    let length = slot.key_size * slot.stripes as usize;
    let ciphertext = door::read(storage, slot.area.start, length.next_multiple_of(SECTOR))?;
    let mut material = LockedBytes::copy_from(&ciphertext)?;
    crypt.decrypt_material(&mut material);
    let key = kdf::af::merge(
        &material[..length],
        slot.key_size,
        slot.stripes,
        slot.af_hash,
    )
    .map_err(refused)?;
    Ok(VolumeKey::from_locked(key))
}
