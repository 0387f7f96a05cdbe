//! Keyslots of LUKS1: eight keyslots in a header without a checksum.
//!
//! Reference: LUKS1 On-Disk Format 1.2.3, sections 4.2 and 4.4. A change is safe since a sector of
//! 512 bytes is written atomically, and since the entry of each keyslot except keyslot 6 is in one
//! sector.

use luksmith_formats::luks2::{Kdf, Priority};
use luksmith_formats::{Limits, luks1};

use super::new_keyslot::NewKeyslot;
use crate::Interrupt;
use crate::container::gap;
use crate::container::keyslot_info::luks1_sealing;
use crate::container::plan::WritePlan;
use crate::container::rewrite::{SectorOrder, write_luks1};
use crate::container::{CommitError, Container, Header, KeyslotError, material};
use crate::secret::VolumeKey;

impl Container {
    pub(super) fn change_luks1_keyslot(
        &mut self,
        header: luks1::Header,
        old: u32,
        key: &VolumeKey,
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
            let (mut plan, added) =
                luks1_with_key(header, target, key, new, &self.options.limits, interrupt)?;
            let mut next = added.clone();
            deactivate(&mut next, old_index);
            write_luks1(&mut plan, &added, &next, SectorOrder::Deactivate);
            plan.wipe(next.area(old_index))?;
            self.commit(&plan, Header::Luks1(next))?;
            return Ok(target);
        }
        // All eight are in use. If the space before the payload has a large enough gap, the key
        // material moves there, and one write of the entry switches to it. The entry of each
        // keyslot except keyslot 6 is in one sector.
        let mut plan = WritePlan::default();
        let mut next = header.clone();
        let gap = match free_luks1_area(&header).filter(|_| old_index != 6) {
            Some(start) if self.is_free(&header, start)? => Some(start),
            _ => None,
        };
        if let Some(start) = gap {
            next.keyslots[old_index].key_material_offset = start;
        } else {
            plan.in_place();
        }
        set_luks1_kdf(&mut next, old_index, new)?;
        let sealing = luks1_sealing(&next, old_index)?;
        plan.write(
            next.area(old_index).start,
            material::seal(
                key,
                new.passphrase,
                &sealing,
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

    /// Whether no other program keeps something in the space of an area that begins at this sector.
    fn is_free(&self, header: &luks1::Header, start: u32) -> Result<bool, CommitError> {
        let area = header.area(0);
        let start = u64::from(start) * 512;
        let end = start + (area.end - area.start);
        Ok(gap::find(&*self.storage, start..end, &[])?.is_none())
    }
}

pub(super) fn luks1_with_key(
    header: luks1::Header,
    slot: u32,
    key: &VolumeKey,
    new: &NewKeyslot<'_>,
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<(WritePlan, luks1::Header), KeyslotError> {
    let index = slot as usize;
    let mut next = header.clone();
    set_luks1_kdf(&mut next, index, new)?;
    next.keyslots[index].active = true;
    next.keyslots[index].stripes = luks1::STRIPES;
    let sealing = luks1_sealing(&next, index)?;
    let mut plan = WritePlan::default();
    plan.write(
        next.area(index).start,
        material::seal(key, new.passphrase, &sealing, limits, interrupt)?,
    );
    plan.flush();
    write_luks1(&mut plan, &header, &next, SectorOrder::Activate);
    Ok((plan, next))
}

/// Sets the iterations and the salt of a LUKS1 keyslot. LUKS1 supports only PBKDF2 with the hash of
/// the header.
pub(in crate::container) fn set_luks1_kdf(
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
    match new.salted()? {
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

pub(super) fn deactivate(header: &mut luks1::Header, index: usize) {
    let keyslot = &mut header.keyslots[index];
    keyslot.active = false;
    keyslot.iterations = 0;
    keyslot.salt = [0; 32];
}

/// The first sector, aligned to 4096 bytes, of a gap before the payload that is large enough for an
/// area.
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
