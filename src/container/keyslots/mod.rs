//! Adding, changing, removing and ordering keyslots.
//!
//! LUKS1 On-Disk Format 1.2.3, sections 4.2 and 4.4; LUKS2 On-Disk Format 1.1, section 3.2. New key material goes
//! where nothing in use lies, and is durable before a header names it; what a header no longer names is wiped last.

mod luks1;
mod luks2;
mod new_keyslot;

use luksmith_formats::luks2::{Keyslot, MAX_DIGESTS, Priority};

pub(super) use luks1::set_luks1_kdf;
pub(super) use luks2::{Protection, luks2_keyslot};
pub use new_keyslot::NewKeyslot;

use super::digest::KeyDigest;
use super::plan::WritePlan;
use super::rewrite::{SectorOrder, write_luks1};
use super::{Container, Header, KeyslotError, Unlocked, keyslot_info};
use crate::Interrupt;
use crate::secret::VolumeKey;

/// Highest number of keyslots of a LUKS2 header.
const LUKS2_KEYSLOTS: u32 = 32;

/// The key of an unbound keyslot is as random as a volume key: its digest needs no calibration.
const UNBOUND_DIGEST_ITERATIONS: u32 = 1000;

impl Container {
    /// Adds a keyslot that holds the volume key, and returns its number.
    ///
    /// # Errors
    /// [`KeyslotError::WrongKey`] for another container's key, and others; nothing has changed then, unless writing
    /// itself failed.
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
        if !self.is_own_volume_key(unlocked) {
            return Err(KeyslotError::WrongKey);
        }
        match &self.header {
            Header::Luks1(header) => {
                let (plan, next) = luks1::luks1_with_key(
                    header.clone(),
                    slot,
                    &unlocked.key,
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
                    self.luks2_material(&mut plan, &next, slot, &unlocked.key, new, interrupt)?;
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
        key: VolumeKey,
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
        let mut plan = WritePlan::default();
        let keyslot = self.luks2_material(&mut plan, &next, slot, &key, new, interrupt)?;
        let digest = KeyDigest::new(&key, keyslot.af.hash, UNBOUND_DIGEST_ITERATIONS, interrupt)?;
        let id = (0..MAX_DIGESTS).find(|id| !header.metadata.digests().contains_key(id));
        let id = id.ok_or_else(|| KeyslotError::Unsupported("all digests are in use".into()))?;
        next.metadata.edit(|draft| {
            draft.set_keyslot(slot, &Keyslot::Luks2(keyslot))?;
            draft.set_digest(id, &digest.into_luks2(vec![slot], Vec::new()))
        })?;
        self.write_luks2(&mut plan, &mut next)?;
        self.commit(&plan, Header::Luks2(next))?;
        Ok(slot)
    }

    /// Gives the keyslot that `unlocked` came from a new passphrase, and returns the number of the keyslot that
    /// holds it then: the same for LUKS2; for LUKS1 another one where one is free, as cryptsetup does it.
    ///
    /// # Errors
    /// [`KeyslotError::WrongKey`] for another container's key, and others. When there is no free room the change
    /// overwrites in place and needs an undo store: [`super::CommitError::NeedsUndo`].
    pub fn change_keyslot(
        &mut self,
        unlocked: &Unlocked,
        new: &NewKeyslot<'_>,
        interrupt: &Interrupt,
    ) -> Result<u32, KeyslotError> {
        self.check_writable()?;
        let old = unlocked
            .slot
            .ok_or_else(|| KeyslotError::Unsupported("no keyslot was opened".into()))?;
        if self.keyslot(old).is_none() {
            return Err(KeyslotError::NotInUse(old));
        }
        if !self.is_key_of(old, unlocked) {
            return Err(KeyslotError::WrongKey);
        }
        let key = &unlocked.key;
        match &self.header {
            Header::Luks1(header) => {
                let header = header.clone();
                self.change_luks1_keyslot(header, old, key, new, interrupt)
            }
            Header::Luks2(header) => {
                let header = header.clone();
                self.change_luks2_keyslot(header, old, key, new, interrupt)
            }
        }
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
                luks1::deactivate(&mut next, slot as usize);
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
}

fn no_digest() -> KeyslotError {
    KeyslotError::Unsupported("no digest belongs to the data segment".into())
}
