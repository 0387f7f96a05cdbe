//! Key material: splits a key into stripes and encrypts them for a keyslot area, and the reverse.
//!
//! References: LUKS1 On-Disk Format 1.2.3, sections 2.4 (anti-forensic splitter) and 4; LUKS2
//! On-Disk Format 1.1, section 3.2. An area is encrypted in 512-byte sectors whose IVs count from
//! 0. Split keys are only in locked memory.

use luksmith_formats::Limits;

use super::{KeyslotError, KeyslotInfo, KeyslotMark, Sealing, UnlockError};
use crate::Interrupt;
use crate::backend::Backend;
use crate::crypt::{self, SectorCrypt};
use crate::door;
use crate::kdf::{self, KdfError};
use crate::secret::{LockedBytes, Passphrase, VolumeKey};

const SECTOR: usize = 512;

/// The bytes of an area that hold `key`, which `passphrase` opens.
pub(super) fn seal(
    key: &VolumeKey,
    passphrase: &Passphrase,
    sealing: &Sealing,
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<Vec<u8>, KeyslotError> {
    crypt::check_built(sealing.cipher.cipher)?;
    kdf::check_built(sealing.af_hash)?;
    // New keyslots have to be within the limits too. Otherwise they would not open without raising
    // them.
    let size = sealing.cipher_key_size;
    let derived = match kdf::derive(&sealing.kdf, passphrase, size, limits, interrupt) {
        Err(KdfError::OverLimit(cost)) => return Err(KeyslotError::Cost(cost)),
        derived => derived?,
    };
    let crypt = SectorCrypt::for_keyslot(sealing.cipher, &derived)?;
    let split = kdf::af::split(key.as_bytes(), sealing.stripes, sealing.af_hash)?;
    let mut material = LockedBytes::new(split.len().next_multiple_of(SECTOR))?;
    material[..split.len()].copy_from_slice(&split);
    drop(split);
    crypt.encrypt_material(&mut material);
    Ok(material.to_vec())
}

/// The key that `passphrase` gives in `slot`, and the mark of the keyslot. The key is not verified:
/// for a wrong passphrase it is wrong.
pub(super) fn unseal(
    storage: &dyn Backend,
    slot: &KeyslotInfo,
    sealing: &Sealing,
    passphrase: &Passphrase,
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<(VolumeKey, KeyslotMark), UnlockError> {
    let refused = |source: KdfError| UnlockError::Kdf {
        slot: slot.slot,
        source,
    };
    // Checked before any work.
    crypt::check_built(sealing.cipher.cipher)?;
    kdf::check_built(sealing.af_hash).map_err(refused)?;
    let length = slot.key_size * sealing.stripes as usize;
    // Read first: a derivation takes long, and is in vain if the area cannot be read.
    let ciphertext = door::read(storage, slot.area.start, length.next_multiple_of(SECTOR))?;
    let size = sealing.cipher_key_size;
    let derived =
        kdf::derive(&sealing.kdf, passphrase, size, limits, interrupt).map_err(refused)?;
    let crypt = SectorCrypt::for_keyslot(sealing.cipher, &derived)?;
    let mut material = LockedBytes::copy_from(&ciphertext)?;
    crypt.decrypt_material(&mut material);
    let key = kdf::af::merge(
        &material[..length],
        slot.key_size,
        sealing.stripes,
        sealing.af_hash,
    )
    .map_err(refused)?;
    let mark = KeyslotMark::new(&sealing.kdf, &ciphertext[..length]);
    Ok((VolumeKey::from_locked(key), mark))
}
