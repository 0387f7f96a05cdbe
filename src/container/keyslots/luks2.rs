//! Keyslots of LUKS2, which the JSON describes. Their areas may be anywhere in the keyslots area.
//!
//! Reference: LUKS2 On-Disk Format 1.1, section 3.2. A change writes to free space, and the header
//! switches to it. It overwrites in place only if the keyslots area is full.

use std::ops::Range;

use luksmith_formats::luks2::{self, Af, Area, Keyslot, Luks2Keyslot};
use luksmith_formats::{CipherSpec, FormatError, Hash};

use super::new_keyslot::NewKeyslot;
use crate::Interrupt;
use crate::container::keyslot_info::luks2_sealing;
use crate::container::plan::WritePlan;
use crate::container::{Container, Header, KeyslotError, material};
use crate::secret::VolumeKey;

impl Container {
    pub(super) fn change_luks2_keyslot(
        &mut self,
        header: luks2::Header,
        old: u32,
        key: &VolumeKey,
        new: &NewKeyslot<'_>,
        interrupt: &Interrupt,
    ) -> Result<u32, KeyslotError> {
        let slot = match new.slot {
            Some(slot) if slot != old => self.free_slot(Some(slot))?,
            _ => old,
        };
        let Some(Keyslot::Luks2(before)) = header.metadata.keyslots().get(&old) else {
            return Err(KeyslotError::NotInUse(old));
        };
        let old_area = before.area.clone();
        let mut plan = WritePlan::default();
        let mut next = header.clone();
        let wipe_old = match self.luks2_material(&mut plan, &header, key, new, interrupt) {
            Ok(mut keyslot) => {
                keyslot.priority = before.priority;
                replace_keyslot(&mut next, old, slot, &keyslot)?;
                true
            }
            Err(KeyslotError::NoRoom { .. }) => {
                let mut keyslot = before.clone();
                keyslot.kdf = new.salted()?;
                replace_keyslot(&mut next, old, slot, &keyslot)?;
                let sealing = luks2_sealing(&keyslot);
                plan.in_place();
                plan.write(
                    old_area.offset,
                    material::seal(
                        key,
                        new.passphrase,
                        &sealing,
                        &self.options.limits,
                        interrupt,
                    )?,
                );
                plan.flush();
                false
            }
            Err(error) => return Err(error),
        };
        self.write_luks2(&mut plan, &mut next)?;
        if wipe_old {
            plan.wipe(old_area.offset..old_area.offset + old_area.size)?;
        }
        self.commit(&plan, Header::Luks2(next))?;
        Ok(slot)
    }

    /// Encrypts the key for a new keyslot, and adds the write to free space of the keyslots area as
    /// the first step of the plan.
    pub(super) fn luks2_material(
        &self,
        plan: &mut WritePlan,
        header: &luks2::Header,
        key: &VolumeKey,
        new: &NewKeyslot<'_>,
        interrupt: &Interrupt,
    ) -> Result<Luks2Keyslot, KeyslotError> {
        let protection = Protection::as_present(header);
        let keyslot = luks2_keyslot(header, key.as_bytes().len(), new, protection, &[])?;
        let sealing = luks2_sealing(&keyslot);
        plan.write(
            keyslot.area.offset,
            material::seal(
                key,
                new.passphrase,
                &sealing,
                &self.options.limits,
                interrupt,
            )?,
        );
        plan.flush();
        Ok(keyslot)
    }
}

/// Adds the token of a new keyslot, if it has one.
pub(super) fn add_token(
    header: &mut luks2::Header,
    slot: u32,
    new: &NewKeyslot<'_>,
) -> Result<(), KeyslotError> {
    let Some(token) = &new.token else {
        return Ok(());
    };
    let taken = header.metadata.tokens();
    let id = (0..luks2::MAX_OBJECTS).find(|id| !taken.contains_key(id));
    let id = id.ok_or_else(|| KeyslotError::Unsupported("all tokens are in use".into()))?;
    Ok(header.metadata.edit(|draft| {
        draft.set_token(id, token.clone())?;
        draft.assign_token(id, slot, true)
    })?)
}

/// Replaces the keyslot `old` by `slot` in one edit, with everything that refers to it.
fn replace_keyslot(
    header: &mut luks2::Header,
    old: u32,
    slot: u32,
    keyslot: &Luks2Keyslot,
) -> Result<(), FormatError> {
    header.metadata.edit(|draft| {
        if old != slot {
            draft.renumber_keyslot(old, slot)?;
        }
        draft.set_keyslot(slot, &Keyslot::Luks2(keyslot.clone()))
    })
}

/// The cipher and the hash that protect the key material of a LUKS2 keyslot.
#[derive(Clone, Copy)]
pub(in crate::container) struct Protection {
    pub(in crate::container) encryption: CipherSpec,
    pub(in crate::container) key_size: u32,
    pub(in crate::container) hash: Hash,
}

impl Protection {
    /// The same as those of an existing keyslot, or the defaults if there is none.
    pub(in crate::container) fn as_present(header: &luks2::Header) -> Self {
        let present = header
            .metadata
            .keyslots()
            .values()
            .find_map(Keyslot::as_luks2);
        present.map_or(
            Self {
                encryption: CipherSpec::AES_XTS_PLAIN64,
                key_size: 64,
                hash: Hash::Sha256,
            },
            |keyslot| Self {
                encryption: keyslot.area.encryption,
                key_size: keyslot.area.key_size,
                hash: keyslot.af.hash,
            },
        )
    }
}

/// A LUKS2 keyslot for a key of `key_size` bytes, with an area in free space outside of `taken`. It
/// is not yet in the header.
pub(in crate::container) fn luks2_keyslot(
    header: &luks2::Header,
    key_size: usize,
    new: &NewKeyslot<'_>,
    protection: Protection,
    taken: &[Range<u64>],
) -> Result<Luks2Keyslot, KeyslotError> {
    let key_size = u32::try_from(key_size).unwrap_or(u32::MAX);
    let size = Luks2Keyslot::area_size(key_size);
    let offset = header
        .metadata
        .free_area(size, taken)
        .ok_or(KeyslotError::NoRoom { needed: size })?;
    Ok(Luks2Keyslot {
        key_size,
        priority: new.priority,
        area: Area {
            offset,
            size,
            encryption: protection.encryption,
            key_size: protection.key_size,
        },
        kdf: new.salted()?,
        af: Af {
            stripes: luks2::STRIPES,
            hash: protection.hash,
        },
    })
}
