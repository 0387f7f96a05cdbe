//! Adding, changing, removing and ordering keyslots.
//!
//! LUKS1 On-Disk Format 1.2.3, sections 4.2 and 4.4; LUKS2 On-Disk Format 1.1, section 3.2. New key material goes
//! where nothing in use lies, and is durable before a header names it; what a header no longer names is wiped last.

use luksmith_formats::luks2::{self, Af, Area, Digest, Kdf, Keyslot, Luks2Keyslot, Priority};
use luksmith_formats::{CipherSpec, Hash, Limits, luks1};

use super::keyslot_info::{self, luks1_keyslot};
use super::plan::WritePlan;
use super::rewrite::{SectorOrder, write_luks1};
use super::{Container, Header, KeyslotError, Unlocked, material};
use crate::Interrupt;
use crate::kdf::calibrate::Cost;
use crate::secret::Passphrase;

/// Highest number of keyslots of a LUKS2 header.
const LUKS2_KEYSLOTS: u32 = 32;

/// The key of an unbound keyslot is as random as a volume key: its digest needs no calibration.
const UNBOUND_DIGEST_ITERATIONS: u32 = 1000;

/// What a new keyslot is made of.
pub struct NewKeyslot<'a> {
    /// What will open it.
    pub passphrase: &'a Passphrase,
    /// Its number; the lowest free one when not given.
    pub slot: Option<u32>,
    /// What deriving its key costs.
    pub kdf: Cost,
    /// When it is tried. LUKS1 knows only [`Priority::Normal`].
    pub priority: Priority,
}

impl Container {
    /// Adds a keyslot that holds the volume key, and returns its number.
    ///
    /// # Errors
    /// [`KeyslotError`]; nothing has changed then, unless writing itself failed.
    pub fn add_keyslot(
        &mut self,
        unlocked: &Unlocked,
        new: &NewKeyslot<'_>,
        interrupt: &Interrupt,
    ) -> Result<u32, KeyslotError> {
        if !unlocked.bound {
            return Err(KeyslotError::Unsupported(
                "the key is not the volume key".into(),
            ));
        }
        let slot = self.free_slot(new.slot)?;
        match &self.header {
            Header::Luks1(header) => {
                let (plan, next) = luks1_with_key(
                    header.clone(),
                    slot,
                    unlocked,
                    new,
                    &self.options.limits,
                    interrupt,
                )?;
                self.commit(&plan, Header::Luks1(next))?;
            }
            Header::Luks2(header) => {
                let mut next = header.clone();
                let (digest, _) = keyslot_info::volume_digest(header).ok_or_else(no_digest)?;
                let mut plan = WritePlan::default();
                let keyslot =
                    self.luks2_material(&mut plan, &next, slot, unlocked, new, interrupt)?;
                next.metadata
                    .add_keyslot(slot, &Keyslot::Luks2(keyslot), digest)?;
                self.write_luks2(&mut plan, &mut next)?;
                self.commit(&plan, Header::Luks2(next))?;
            }
        }
        Ok(slot)
    }

    /// Adds a LUKS2 keyslot that holds a key of its own, bound to no segment, and returns its number.
    ///
    /// # Errors
    /// [`KeyslotError`]; LUKS1 has no unbound keyslots.
    pub fn add_unbound_keyslot(
        &mut self,
        key: crate::secret::VolumeKey,
        new: &NewKeyslot<'_>,
        interrupt: &Interrupt,
    ) -> Result<u32, KeyslotError> {
        let slot = self.free_slot(new.slot)?;
        let Header::Luks2(header) = &self.header else {
            return Err(KeyslotError::Unsupported(
                "LUKS1 has no unbound keyslots".into(),
            ));
        };
        let mut next = header.clone();
        let unlocked = Unlocked {
            slot: None,
            key,
            bound: false,
        };
        let mut plan = WritePlan::default();
        let keyslot = self.luks2_material(&mut plan, &next, slot, &unlocked, new, interrupt)?;
        let digest = super::create::digest_of_key(
            &unlocked.key,
            keyslot.af.hash,
            UNBOUND_DIGEST_ITERATIONS,
            interrupt,
        )?;
        let id = (0..luks2::MAX_DIGESTS).find(|id| !header.metadata.digests().contains_key(id));
        let id = id.ok_or_else(|| KeyslotError::Unsupported("all digests are in use".into()))?;
        next.metadata.edit(|draft| {
            draft.set_keyslot(slot, &Keyslot::Luks2(keyslot))?;
            draft.set_digest(
                id,
                &Digest {
                    keyslots: vec![slot],
                    ..digest
                },
            )
        })?;
        self.write_luks2(&mut plan, &mut next)?;
        self.commit(&plan, Header::Luks2(next))?;
        Ok(slot)
    }

    /// Gives the keyslot that `unlocked` came from a new passphrase, and returns the number of the keyslot that
    /// holds it then: the same for LUKS2; for LUKS1 another one where one is free, as cryptsetup does it.
    ///
    /// # Errors
    /// [`KeyslotError`]. When there is no free room the change overwrites in place and needs an undo store:
    /// [`super::CommitError::NeedsUndo`].
    pub fn change_keyslot(
        &mut self,
        unlocked: &Unlocked,
        new: &NewKeyslot<'_>,
        interrupt: &Interrupt,
    ) -> Result<u32, KeyslotError> {
        let old = unlocked
            .slot
            .ok_or_else(|| KeyslotError::Unsupported("no keyslot was opened".into()))?;
        match &self.header {
            Header::Luks1(header) => {
                let header = header.clone();
                self.change_luks1_keyslot(header, old, unlocked, new, interrupt)
            }
            Header::Luks2(header) => {
                let header = header.clone();
                self.change_luks2_keyslot(header, old, unlocked, new, interrupt)
            }
        }
    }

    fn change_luks1_keyslot(
        &mut self,
        header: luks1::Header,
        old: u32,
        unlocked: &Unlocked,
        new: &NewKeyslot<'_>,
        interrupt: &Interrupt,
    ) -> Result<u32, KeyslotError> {
        let target = match self.free_slot(new.slot) {
            Ok(slot) => slot,
            Err(KeyslotError::AllInUse(_)) => old,
            Err(KeyslotError::InUse(slot)) if slot == old => old,
            Err(error) => return Err(error),
        };
        let old_index = old as usize;
        if target != old {
            let (mut plan, added) = luks1_with_key(
                header,
                target,
                unlocked,
                new,
                &self.options.limits,
                interrupt,
            )?;
            let mut next = added.clone();
            deactivate(&mut next, old_index);
            write_luks1(&mut plan, &added, &next, SectorOrder::Deactivate);
            plan.wipe(next.area(old_index))?;
            self.commit(&plan, Header::Luks1(next))?;
            return Ok(target);
        }
        // All eight are in use. Where the space before the payload has a gap as large as an area, the keyslot moves
        // there, and its entry (whole within a sector for all but keyslot 6) switches from the old to the new.
        let mut plan = WritePlan::default();
        let mut next = header.clone();
        let gap = free_luks1_area(&header).filter(|_| old_index != 6);
        if let Some(start) = gap {
            next.keyslots[old_index].key_material_offset = start;
        } else {
            plan.in_place();
        }
        set_luks1_kdf(&mut next, old_index, new)?;
        let slot = luks1_keyslot(&next, old_index)?;
        plan.write(
            slot.area.start,
            material::seal(
                &unlocked.key,
                new.passphrase,
                &slot,
                &self.options.limits,
                interrupt,
            )?,
        );
        plan.flush();
        write_luks1(&mut plan, &header, &next, SectorOrder::Activate);
        if gap.is_some() {
            plan.wipe(header.area(old_index))?;
        }
        self.commit(&plan, Header::Luks1(next))?;
        Ok(old)
    }

    fn change_luks2_keyslot(
        &mut self,
        header: luks2::Header,
        old: u32,
        unlocked: &Unlocked,
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
        let wipe_old = match self.luks2_material(&mut plan, &header, slot, unlocked, new, interrupt)
        {
            Ok(mut keyslot) => {
                keyslot.priority = before.priority;
                replace_keyslot(&mut next, old, slot, &keyslot)?;
                true
            }
            Err(KeyslotError::NoRoom { .. }) => {
                let mut keyslot = before.clone();
                keyslot.kdf = new.kdf.with_salt(fresh_salt()?);
                replace_keyslot(&mut next, old, slot, &keyslot)?;
                let info = keyslot_info::luks2_keyslot(&next, slot, &keyslot);
                plan.in_place();
                plan.write(
                    old_area.offset,
                    material::seal(
                        &unlocked.key,
                        new.passphrase,
                        &info,
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

    /// Removes a keyslot: it no longer opens once this has returned, and its key material is overwritten.
    ///
    /// # Errors
    /// [`KeyslotError::Last`] for the last one that opens the volume, unless `allow_last`.
    pub fn remove_keyslot(&mut self, slot: u32, allow_last: bool) -> Result<(), KeyslotError> {
        self.check_writable()?;
        let info = self.keyslot(slot).ok_or(KeyslotError::NotInUse(slot))?;
        let bound = self
            .keyslots()
            .iter()
            .filter(|keyslot| keyslot.bound)
            .count();
        if info.bound && bound == 1 && !allow_last {
            return Err(KeyslotError::Last(slot));
        }
        let mut plan = WritePlan::default();
        let next = match &self.header {
            Header::Luks1(header) => {
                let mut next = header.clone();
                deactivate(&mut next, slot as usize);
                write_luks1(&mut plan, header, &next, SectorOrder::Deactivate);
                Header::Luks1(next)
            }
            Header::Luks2(header) => {
                let mut next = header.clone();
                // The digest of an unbound keyslot goes with it.
                let orphan = header.metadata.digest_of_keyslot(slot);
                let orphan = orphan
                    .filter(|(_, digest)| digest.segments.is_empty() && digest.keyslots.len() == 1);
                let orphan = orphan.map(|(id, _)| id);
                next.metadata.edit(|draft| {
                    draft.remove_keyslot(slot)?;
                    orphan.map_or(Ok(()), |id| draft.remove_digest(id))
                })?;
                self.write_luks2(&mut plan, &mut next)?;
                Header::Luks2(next)
            }
        };
        plan.wipe(info.area)?;
        Ok(self.commit(&plan, next)?)
    }

    /// Sets when a LUKS2 keyslot is tried.
    ///
    /// # Errors
    /// [`KeyslotError`]; LUKS1 has no priorities.
    pub fn set_priority(&mut self, slot: u32, priority: Priority) -> Result<(), KeyslotError> {
        self.check_writable()?;
        let Header::Luks2(header) = &self.header else {
            return Err(KeyslotError::Unsupported(
                "LUKS1 has no keyslot priorities".into(),
            ));
        };
        if self.keyslot(slot).is_none() {
            return Err(KeyslotError::NotInUse(slot));
        }
        let mut next = header.clone();
        next.metadata.set_priority(slot, priority)?;
        let mut plan = WritePlan::default();
        self.write_luks2(&mut plan, &mut next)?;
        Ok(self.commit(&plan, Header::Luks2(next))?)
    }

    /// A mandatory requirement means that somebody else is in the middle of something, or knows more than we do.
    fn check_writable(&self) -> Result<(), KeyslotError> {
        match self.requirements() {
            requirements if requirements.is_empty() => Ok(()),
            requirements => Err(KeyslotError::Requirements(requirements.join(", "))),
        }
    }

    fn free_slot(&self, wanted: Option<u32>) -> Result<u32, KeyslotError> {
        self.check_writable()?;
        let count = match &self.header {
            Header::Luks1(_) => 8,
            Header::Luks2(_) => LUKS2_KEYSLOTS,
        };
        let taken = |slot: u32| match &self.header {
            Header::Luks1(header) => header.keyslots[slot as usize].active,
            Header::Luks2(header) => header.metadata.keyslots().contains_key(&slot),
        };
        match wanted {
            Some(slot) if slot >= count => {
                let format = if count == 8 { "LUKS1" } else { "LUKS2" };
                Err(KeyslotError::OutOfRange {
                    slot,
                    format,
                    last: count - 1,
                })
            }
            Some(slot) if taken(slot) => Err(KeyslotError::InUse(slot)),
            Some(slot) => Ok(slot),
            None => (0..count)
                .find(|&slot| !taken(slot))
                .ok_or(KeyslotError::AllInUse(count)),
        }
    }

    /// Seals the key for a new LUKS2 keyslot into free room of the keyslots area, as the plan's first step.
    fn luks2_material(
        &self,
        plan: &mut WritePlan,
        header: &luks2::Header,
        slot: u32,
        unlocked: &Unlocked,
        new: &NewKeyslot<'_>,
        interrupt: &Interrupt,
    ) -> Result<Luks2Keyslot, KeyslotError> {
        let protection = Protection::as_present(header);
        let keyslot = luks2_keyslot(header, unlocked.key.as_bytes().len(), new, protection)?;
        let info = keyslot_info::luks2_keyslot(header, slot, &keyslot);
        plan.write(
            keyslot.area.offset,
            material::seal(
                &unlocked.key,
                new.passphrase,
                &info,
                &self.options.limits,
                interrupt,
            )?,
        );
        plan.flush();
        Ok(keyslot)
    }
}

/// In one edit: the keyslot `old` becomes `slot`, with whatever names it.
fn replace_keyslot(
    header: &mut luks2::Header,
    old: u32,
    slot: u32,
    keyslot: &Luks2Keyslot,
) -> Result<(), luksmith_formats::FormatError> {
    if old == slot {
        return header
            .metadata
            .set_keyslot(slot, &Keyslot::Luks2(keyslot.clone()));
    }
    let digest = header.metadata.digest_of_keyslot(old).map(|(id, _)| id);
    let tokens = header
        .metadata
        .tokens()
        .iter()
        .filter(|(_, token)| token.keyslots.contains(&old));
    let tokens: Vec<u32> = tokens.map(|(id, _)| *id).collect();
    header.metadata.edit(|draft| {
        draft.set_keyslot(slot, &Keyslot::Luks2(keyslot.clone()))?;
        draft.assign_keyslot_to_digest(slot, digest)?;
        for token in tokens {
            draft.assign_token(token, slot, true)?;
        }
        draft.remove_keyslot(old)
    })
}

/// How the key material of a LUKS2 keyslot is protected.
#[derive(Clone, Copy)]
pub(super) struct Protection {
    pub(super) encryption: CipherSpec,
    pub(super) key_size: u32,
    pub(super) hash: Hash,
}

impl Protection {
    /// As the keyslots that are there; the default where there is none.
    fn as_present(header: &luks2::Header) -> Self {
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

/// A LUKS2 keyslot for a key of `key_size` bytes, placed in free room, not yet in the header.
pub(super) fn luks2_keyslot(
    header: &luks2::Header,
    key_size: usize,
    new: &NewKeyslot<'_>,
    protection: Protection,
) -> Result<Luks2Keyslot, KeyslotError> {
    let key_size = u32::try_from(key_size).unwrap_or(u32::MAX);
    let size = Luks2Keyslot::area_size(key_size);
    let offset = header
        .metadata
        .free_area(size, &[])
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
        kdf: new.kdf.with_salt(fresh_salt()?),
        af: Af {
            stripes: luks2::STRIPES,
            hash: protection.hash,
        },
    })
}

fn luks1_with_key(
    header: luks1::Header,
    slot: u32,
    unlocked: &Unlocked,
    new: &NewKeyslot<'_>,
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<(WritePlan, luks1::Header), KeyslotError> {
    let index = slot as usize;
    let mut next = header.clone();
    set_luks1_kdf(&mut next, index, new)?;
    next.keyslots[index].active = true;
    next.keyslots[index].stripes = luks1::STRIPES;
    let info = luks1_keyslot(&next, index)?;
    let mut plan = WritePlan::default();
    plan.write(
        info.area.start,
        material::seal(&unlocked.key, new.passphrase, &info, limits, interrupt)?,
    );
    plan.flush();
    write_luks1(&mut plan, &header, &next, SectorOrder::Activate);
    Ok((plan, next))
}

/// LUKS1 keeps iterations and salt in the keyslot; its hash is the header's.
pub(super) fn set_luks1_kdf(
    header: &mut luks1::Header,
    index: usize,
    new: &NewKeyslot<'_>,
) -> Result<(), KeyslotError> {
    if new.priority != Priority::Normal {
        return Err(KeyslotError::Unsupported(
            "LUKS1 has no keyslot priorities".into(),
        ));
    }
    let hash = header.hash()?;
    match new.kdf.with_salt(fresh_salt()?) {
        Kdf::Pbkdf2 {
            hash: own,
            iterations,
            salt,
        } if own == hash => {
            header.keyslots[index].iterations = iterations;
            if let Ok(salt) = salt.try_into() {
                header.keyslots[index].salt = salt;
            }
            Ok(())
        }
        Kdf::Pbkdf2 { .. } => Err(KeyslotError::Unsupported(format!(
            "the hash of this LUKS1 header is {hash}"
        ))),
        Kdf::Argon2 { .. } => Err(KeyslotError::Unsupported("LUKS1 has PBKDF2 only".into())),
    }
}

fn deactivate(header: &mut luks1::Header, index: usize) {
    let keyslot = &mut header.keyslots[index];
    keyslot.active = false;
    keyslot.iterations = 0;
    keyslot.salt = [0; 32];
}

/// First sector of a gap before the payload that holds one more area, aligned to 4096 bytes.
fn free_luks1_area(header: &luks1::Header) -> Option<u32> {
    const SECTOR: u64 = 512;
    let mut taken: Vec<_> = (0..luks1::KEYSLOTS).map(|slot| header.area(slot)).collect();
    taken.sort_by_key(|area| area.start);
    let size = taken.first().map(|area| area.end - area.start)?;
    let mut start = 4096;
    for area in taken {
        if start + size <= area.start {
            break;
        }
        start = start.max(area.end.next_multiple_of(4096));
    }
    (start + size <= header.data_offset())
        .then(|| u32::try_from(start / SECTOR).ok())
        .flatten()
}

fn fresh_salt() -> Result<Vec<u8>, KeyslotError> {
    let mut salt = vec![0; 32];
    crate::secret::random(&mut salt)?;
    Ok(salt)
}

fn no_digest() -> KeyslotError {
    KeyslotError::Unsupported("no digest belongs to the data segment".into())
}
