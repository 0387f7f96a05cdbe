//! Key material: splits a key into stripes and encrypts them for a keyslot area, and the reverse.
//!
//! References: LUKS1 On-Disk Format 1.2.3, sections 2.4 (anti-forensic splitter) and 4; LUKS2
//! On-Disk Format 1.1, section 3.2. An area is encrypted in 512-byte sectors whose IVs count from
//! 0. Split keys are only in locked memory, and only one piece of one at a time: an ordinary user
//! may lock as little as 64 KiB, and the material of one keyslot has 250 KiB.

use luksmith_formats::Limits;

use super::{KeyslotError, KeyslotInfo, KeyslotMark, Sealing, UnlockError};
use crate::Interrupt;
use crate::backend::Backend;
use crate::crypt::{self, IvSector, SectorCrypt};
use crate::door;
use crate::kdf::{self, KdfError};
use crate::secret::{LockedBytes, Passphrase, VolumeKey};

const SECTOR: usize = 512;
/// The material that is in locked memory at once, in bytes: whole sectors, and a page at most.
const PIECE: usize = 8 * SECTOR;

/// The bytes of an area that hold `key`, which `passphrase` opens.
pub(super) fn seal(
    key: &VolumeKey,
    passphrase: &Passphrase,
    sealing: &Sealing,
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<Vec<u8>, KeyslotError> {
    crypt::check_built(sealing.cipher)?;
    kdf::check_built(sealing.af_hash)?;
    // New keyslots have to be within the limits too. Otherwise they would not open without raising
    // them.
    let size = sealing.cipher_key_size;
    let derived = match kdf::derive(&sealing.kdf, passphrase, size, limits, interrupt) {
        Err(KdfError::OverLimit(cost)) => return Err(KeyslotError::Cost(cost)),
        derived => derived?,
    };
    let crypt = SectorCrypt::for_keyslot(sealing.cipher, &derived)?;
    let length = key.as_bytes().len() * sealing.stripes as usize;
    let mut split = kdf::af::Split::new(key.as_bytes(), sealing.stripes, sealing.af_hash)?;
    let mut sealed = Vec::with_capacity(length.next_multiple_of(SECTOR));
    for (first, len) in pieces(length) {
        let mut piece = LockedBytes::new(len)?;
        split.fill(&mut piece)?;
        crypt.encrypt_material(first, &mut piece);
        sealed.extend_from_slice(&piece);
    }
    Ok(sealed)
}

/// The pieces of an area with `length` bytes of material: the first sector of each, and its length
/// in bytes.
fn pieces(length: usize) -> impl Iterator<Item = (IvSector, usize)> {
    let length = length.next_multiple_of(SECTOR);
    (0..length).step_by(PIECE).map(move |at| {
        let first = IvSector((at / SECTOR) as u64);
        (first, PIECE.min(length - at))
    })
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
    crypt::check_built(sealing.cipher)?;
    kdf::check_built(sealing.af_hash).map_err(refused)?;
    let length = slot.key_size * sealing.stripes as usize;
    // Read first: a derivation takes long, and is in vain if the area cannot be read.
    let ciphertext = door::read(storage, slot.area.start, length.next_multiple_of(SECTOR))?;
    let size = sealing.cipher_key_size;
    let derived =
        kdf::derive(&sealing.kdf, passphrase, size, limits, interrupt).map_err(refused)?;
    let crypt = SectorCrypt::for_keyslot(sealing.cipher, &derived)?;
    let mut merge =
        kdf::af::Merge::new(slot.key_size, sealing.stripes, sealing.af_hash).map_err(refused)?;
    for ((first, _), ciphertext) in pieces(length).zip(ciphertext.chunks(PIECE)) {
        let mut piece = LockedBytes::copy_from(ciphertext)?;
        crypt.decrypt_material(first, &mut piece);
        merge.add(&piece);
    }
    let mark = KeyslotMark::new(&sealing.kdf, &ciphertext[..length]);
    Ok((VolumeKey::from_locked(merge.finish()), mark))
}
