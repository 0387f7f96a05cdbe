//! Adds, changes and removes keyslots, and sets their priorities.
//!
//! References: LUKS1 On-Disk Format 1.2.3, sections 4.2 and 4.4; LUKS2 On-Disk Format 1.1, section
//! 3.2. New key material is written to free space, and is durable before a header refers to it. Old
//! key material is wiped last, when no header refers to it any more.

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
use super::{Container, Header, KeyslotError, KeyslotMark, Unlocked, keyslot_info};
use crate::Interrupt;
use crate::secret::VolumeKey;

/// The maximum number of keyslots of a LUKS2 header.
const LUKS2_KEYSLOTS: u32 = 32;

/// The PBKDF2 iterations of the digest of an unbound key. The key is as random as a volume key, so
/// the digest needs no calibration.
const UNBOUND_DIGEST_ITERATIONS: u32 = 1000;

impl Container {
    /// Adds a keyslot that holds the volume key, and returns its number.
    ///
    /// # Errors
    /// Returns [`KeyslotError`], for example [`KeyslotError::WrongKey`] if the key belongs to
    /// another container. Nothing has changed then, unless writing itself failed.
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
            Header::Luks1(_) if new.token.is_some() => {
                return Err(KeyslotError::Unsupported("LUKS1 has no tokens".into()));
            }
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
                    self.luks2_material(&mut plan, &next, &unlocked.key, new, interrupt)?;
                next.metadata
                    .add_keyslot(slot, &Keyslot::Luks2(keyslot), digest)?;
                luks2::add_token(&mut next, slot, new)?;
                self.write_luks2(&mut plan, &mut next)?;
                self.commit(&plan, Header::Luks2(next))?;
            }
        }
        Ok(slot)
    }

    /// Fails if there is no place for a new keyslot, so that a caller knows it before a key
    /// derivation: its number is in use or too large, or all are in use.
    ///
    /// # Errors
    /// The errors of [`add_keyslot`](Self::add_keyslot) of this kind.
    pub fn check_free(&self, slot: Option<u32>) -> Result<(), KeyslotError> {
        self.free_slot(slot).map(drop)
    }

    /// Adds an unbound LUKS2 keyslot, which holds a key of its own that opens no data. Returns its
    /// number.
    ///
    /// # Errors
    /// Returns [`KeyslotError`]. LUKS1 has no unbound keyslots.
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
        let keyslot = self.luks2_material(&mut plan, &next, &key, new, interrupt)?;
        let digest = KeyDigest::new(&key, keyslot.af.hash, UNBOUND_DIGEST_ITERATIONS, interrupt)?;
        let metadata = &header.metadata;
        let id = (0..MAX_DIGESTS).find(|id| {
            !metadata.digests().contains_key(id) && !metadata.other_digests().contains_key(id)
        });
        let id = id.ok_or_else(|| KeyslotError::Unsupported("all digests are in use".into()))?;
        next.metadata.edit(|draft| {
            draft.set_keyslot(slot, &Keyslot::Luks2(keyslot))?;
            draft.set_digest(id, &digest.into_luks2(vec![slot], Vec::new()))
        })?;
        self.write_luks2(&mut plan, &mut next)?;
        self.commit(&plan, Header::Luks2(next))?;
        Ok(slot)
    }

    /// Changes the passphrase of the keyslot that `unlocked` came from. Returns the number of the
    /// keyslot with the new passphrase: for LUKS2 the same one, for LUKS1 another one if one is
    /// free, as in cryptsetup.
    ///
    /// # Errors
    /// Returns [`KeyslotError`], for example [`KeyslotError::WrongKey`] if the key belongs to
    /// another container, and [`KeyslotError::Replaced`] if the keyslot is not the one that was
    /// opened. If there is no free space, the change overwrites in place. Without an
    /// undo store it then fails with [`super::CommitError::NeedsUndo`].
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
        if let Some(mark) = &unlocked.mark {
            self.check_mark(old, mark)?;
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

    /// Removes a keyslot if it is still the one with this mark, and overwrites its key material.
    ///
    /// The caller has the mark from [`Container::keyslot_mark`] or [`Unlocked::mark`], taken when
    /// it or its user decided which keyslot to remove. Since then, another program may have removed
    /// that keyslot, and given its number to another passphrase.
    ///
    /// # Errors
    /// Returns [`KeyslotError::Replaced`] if the keyslot has another mark, and the errors of
    /// [`remove_keyslot`](Self::remove_keyslot).
    pub fn remove_marked_keyslot(
        &mut self,
        slot: u32,
        mark: &KeyslotMark,
        allow_last: bool,
    ) -> Result<(), KeyslotError> {
        self.check_writable()?;
        self.check_mark(slot, mark)?;
        self.remove_keyslot(slot, allow_last)
    }

    /// Removes the keyslot that has this number in the header as this container has read it, and
    /// overwrites its key material. A caller that chose the keyslot earlier, in another container,
    /// uses [`remove_marked_keyslot`](Self::remove_marked_keyslot).
    ///
    /// # Errors
    /// Returns [`KeyslotError`], for example [`KeyslotError::Last`] if the keyslot is the last one
    /// that opens the volume, unless `allow_last` is set.
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
                // The digest of an unbound keyslot is removed with the keyslot.
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

    /// Sets the priority of a LUKS2 keyslot, which says when it is tried.
    ///
    /// # Errors
    /// Returns [`KeyslotError`]. LUKS1 has no priorities.
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

    /// Refuses changes if the header has a mandatory requirement. Another program may be in the
    /// middle of a change, or uses a feature that luksmith does not know.
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
