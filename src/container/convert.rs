//! Converts a header from LUKS1 to LUKS2 and back. The data does not move, and the passphrases
//! stay.
//!
//! Key material has the same form in both formats, so it is copied without decryption. Both
//! directions overwrite the place that identifies the volume, so they keep an undo record.

use std::ops::Range;

use luksmith_formats::luks2::{
    self, Af, Area, CryptSegment, Digest, Kdf, Keyslot, Luks2Keyslot, Metadata, NewConfig,
    Position, Priority, Segment, SegmentSize,
};
use luksmith_formats::{FormatError, Hash, luks1};

use super::gap;
use super::plan::WritePlan;
use super::rewrite::write_copies;
use super::{Container, Header, HeaderError, Version};
use crate::door;

const METADATA_SIZE: u64 = luks2::HEADER_SIZES[0];
const SECTOR: u64 = 512;

impl Container {
    /// Converts the header to the other version.
    ///
    /// # Errors
    /// Returns [`HeaderError::Cipher`] if volumes with this cipher are only read,
    /// [`HeaderError::Unsupported`] if the other version cannot express something, or if
    /// the keyslots do not fit, and [`HeaderError::InTheWay`] if another program keeps something
    /// where the other version has keyslots. Nothing has changed then. Returns
    /// [`super::CommitError::NeedsUndo`] if there is no undo store.
    pub fn convert(&mut self, to: Version) -> Result<(), HeaderError> {
        let (mut plan, next) = self.converted(to)?;
        plan.in_place();
        Ok(self.commit(&plan, next)?)
    }

    /// Fails if [`convert`](Self::convert) would refuse the conversion.
    ///
    /// # Errors
    /// Those of [`convert`](Self::convert).
    pub fn check_convert(&self, to: Version) -> Result<(), HeaderError> {
        self.converted(to).map(drop)
    }

    /// The converted header, and the plan that writes it.
    fn converted(&self, to: Version) -> Result<(WritePlan, Header), HeaderError> {
        self.check_requirements()?;
        if let Ok(segment) = self.data_segment() {
            segment.cipher.check_writable()?;
        }
        match (&self.header, to) {
            (Header::Luks1(_), Version::Luks1) | (Header::Luks2(_), Version::Luks2) => Err(
                HeaderError::Unsupported(format!("the header is {to} already")),
            ),
            (Header::Luks1(header), Version::Luks2) => {
                let (plan, next) = self.to_luks2(header)?;
                Ok((plan, Header::Luks2(next)))
            }
            (Header::Luks2(header), Version::Luks1) => {
                let (plan, next) = to_luks1(header)?;
                self.check_free_for_luks1(header, &next)?;
                Ok((plan, Header::Luks1(next)))
            }
        }
    }

    fn to_luks2(&self, old: &luks1::Header) -> Result<(WritePlan, luks2::Header), HeaderError> {
        old.check_usable()?;
        let active: Vec<usize> = (0..luks1::KEYSLOTS)
            .filter(|&slot| old.keyslots[slot].active)
            .collect();
        // A detached header may use all of its storage.
        let size = self.storage.geometry().size;
        let end = match old.data_offset() {
            0 => size,
            offset => offset.min(size),
        };
        let keyslots_size = end
            .saturating_sub(METADATA_SIZE * 2)
            .min(luks2::MAX_KEYSLOTS_SIZE)
            / luks2::ALIGNMENT
            * luks2::ALIGNMENT;
        let area_size = Luks2Keyslot::area_size(old.key_bytes);
        let needed = active.len() as u64 * area_size;
        if needed > keyslots_size {
            return Err(HeaderError::Unsupported(format!(
                "{} keyslots need {needed} bytes, LUKS2 leaves {keyslots_size} of the space before the data",
                active.len()
            )));
        }
        let areas: Vec<_> = (0..luks1::KEYSLOTS).map(|slot| old.area(slot)).collect();
        let new_end = METADATA_SIZE * 2 + keyslots_size;
        refuse(gap::find(
            &*self.storage,
            luks1::HEADER_SIZE as u64..new_end,
            &areas,
        )?)?;
        let metadata = Metadata::new(NewConfig {
            json_size: METADATA_SIZE - luks2::ALIGNMENT,
            keyslots_size,
        });
        let mut next = luks2::Header {
            hdr_size: METADATA_SIZE,
            seqid: 1,
            label: String::new(),
            subsystem: String::new(),
            uuid: old.uuid.clone(),
            checksum: Hash::Sha256,
            metadata,
        };
        let start = METADATA_SIZE * 2;
        let mut plan = WritePlan::default();
        let mut position = start;
        next.metadata.edit(|draft| {
            draft.set_segment(
                0,
                &Segment::Crypt(CryptSegment::new(old.data_offset(), old.cipher()?, 512)),
            )?;
            draft.set_digest(
                0,
                &Digest {
                    keyslots: Vec::new(),
                    segments: vec![0],
                    hash: old.hash()?,
                    iterations: old.digest_iterations,
                    salt: old.digest_salt.to_vec(),
                    digest: old.digest.to_vec(),
                },
            )?;
            for &slot in &active {
                let id = u32::try_from(slot).unwrap_or(u32::MAX);
                draft.set_keyslot(
                    id,
                    &Keyslot::Luks2(luks2_keyslot(old, slot, position, area_size)?),
                )?;
                draft.assign_keyslot_to_digest(id, Some(0))?;
                position += area_size;
            }
            Ok(())
        })?;
        // Old key material has to be wiped, since it would survive a later change of its
        // passphrase. The headers overwrite what is before `start`.
        for area in areas.iter().filter(|area| area.end > start) {
            let area = area.start.max(start)..area.end.min(self.storage.geometry().size);
            let length = usize::try_from(area.end.saturating_sub(area.start)).unwrap_or(0);
            let bytes = door::read(&*self.storage, area.start, length)?;
            if bytes.iter().any(|byte| *byte != 0) {
                plan.wipe(area)?;
            }
        }
        for (index, &slot) in active.iter().enumerate() {
            let area = old.area(slot);
            let length = usize::try_from(area.end - area.start).unwrap_or(usize::MAX);
            plan.write(
                start + index as u64 * area_size,
                door::read(&*self.storage, area.start, length)?,
            );
        }
        plan.flush();
        write_copies(&mut plan, &next, [Position::Primary, Position::Secondary])?;
        Ok((plan, next))
    }

    /// Checks the areas of unused keyslots of `next` that are not inside of the keyslots area of
    /// `old`, where everything belongs to the header.
    fn check_free_for_luks1(
        &self,
        old: &luks2::Header,
        next: &luks1::Header,
    ) -> Result<(), HeaderError> {
        let known = 0..old.metadata.keyslots_area().end;
        for slot in (0..luks1::KEYSLOTS).filter(|&slot| !next.keyslots[slot].active) {
            let area = next.area(slot);
            let area = area.start..area.end.min(self.storage.geometry().size);
            refuse(gap::find(
                &*self.storage,
                area,
                std::slice::from_ref(&known),
            )?)?;
        }
        Ok(())
    }
}

fn refuse(found: Option<gap::Found>) -> Result<(), HeaderError> {
    match found {
        None => Ok(()),
        Some(gap::Found { what, at }) => Err(HeaderError::InTheWay { what, at }),
    }
}

fn luks2_keyslot(
    old: &luks1::Header,
    slot: usize,
    offset: u64,
    size: u64,
) -> Result<Luks2Keyslot, FormatError> {
    let keyslot = &old.keyslots[slot];
    let hash = old.hash()?;
    Ok(Luks2Keyslot {
        key_size: old.key_bytes,
        priority: Priority::Normal,
        area: Area {
            offset,
            size,
            encryption: old.cipher()?,
            key_size: old.key_bytes,
        },
        kdf: Kdf::Pbkdf2 {
            hash,
            iterations: keyslot.iterations,
            salt: keyslot.salt.to_vec(),
        },
        af: Af {
            stripes: keyslot.stripes,
            hash,
        },
    })
}

fn to_luks1(old: &luks2::Header) -> Result<(WritePlan, luks1::Header), HeaderError> {
    let no = |reason: &str| HeaderError::Unsupported(reason.to_owned());
    let metadata = &old.metadata;
    if let Some(refusal) = metadata.not_understood().next() {
        return Err(refusal.clone().into());
    }
    if !metadata.tokens().is_empty() {
        return Err(no("LUKS1 has no tokens"));
    }
    if !old.label.is_empty() || !old.subsystem.is_empty() {
        return Err(no("LUKS1 has no labels"));
    }
    if metadata.authenticated_segment()?.is_some() {
        return Err(no("LUKS1 has no authenticated encryption"));
    }
    let (segment_id, segment) = metadata.data_segment()?;
    if segment.sector_size != 512 {
        return Err(HeaderError::SectorSize(segment.sector_size));
    }
    if segment.iv_tweak != 0
        || segment.size != SegmentSize::Dynamic
        || metadata.segments().len() != 1
    {
        return Err(no(
            "LUKS1 has one segment, which ends with the storage and whose IVs begin at 0",
        ));
    }
    let (_, digest) = metadata
        .digest_of_segment(segment_id)
        .ok_or_else(|| no("no digest belongs to the data segment"))?;
    let first_twenty = digest
        .digest
        .first_chunk()
        .ok_or_else(|| no("the digest is shorter than the 20 bytes of LUKS1"))?;
    let payload_offset = u32::try_from(segment.offset / SECTOR)
        .map_err(|_| no("the data begins at 2 TiB or later, which LUKS1 cannot express"))?;
    let mut key_bytes = None;
    let mut keyslots: [Option<luks1::Keyslot>; luks1::KEYSLOTS] = Default::default();
    // Areas start after the block that holds the header.
    let mut taken: Vec<Range<u64>> = Vec::from([Range {
        start: 0,
        end: luks2::ALIGNMENT,
    }]);
    for (&slot, keyslot) in metadata.keyslots() {
        let Keyslot::Luks2(keyslot) = keyslot else {
            return Err(no("a keyslot has a type that LUKS1 does not have"));
        };
        if !digest.keyslots.contains(&slot) {
            return Err(no("LUKS1 has no unbound keyslots"));
        }
        let place = usize::try_from(slot)
            .ok()
            .and_then(|slot| keyslots.get_mut(slot));
        let place = place.ok_or_else(|| no("LUKS1 has no keyslots with numbers above 7"))?;
        key_bytes = Some(keyslot.key_size);
        taken.push(keyslot.area.range());
        *place = Some(luks1_keyslot(keyslot, digest.hash, segment)?);
    }
    let key_bytes =
        key_bytes.ok_or_else(|| HeaderError::Unsupported("no keyslot is in use".into()))?;
    let size = Luks2Keyslot::area_size(key_bytes);
    let keyslots = keyslots.map(|keyslot| {
        keyslot.or_else(|| {
            let start = first_gap(&taken, size)?;
            taken.push(start..start + size);
            Some(luks1::Keyslot {
                active: false,
                iterations: 0,
                salt: [0; 32],
                key_material_offset: u32::try_from(start / SECTOR).ok()?,
                stripes: luks1::STRIPES,
            })
        })
    });
    let mut complete = Vec::new();
    for keyslot in keyslots {
        complete.push(
            keyslot.ok_or_else(|| no("the eight keyslots of LUKS1 do not fit before the data"))?,
        );
    }
    let (cipher_name, cipher_mode) = segment.encryption.luks1_names();
    let next =
        luks1::Header {
            cipher_name,
            cipher_mode,
            hash_name: digest.hash.name().into(),
            payload_offset,
            key_bytes,
            digest: *first_twenty,
            digest_salt: digest.salt.first_chunk().copied().ok_or_else(|| {
                no("the salt of the digest is shorter than the 32 bytes of LUKS1")
            })?,
            digest_iterations: digest.iterations,
            uuid: old.uuid.clone(),
            keyslots: complete
                .try_into()
                .map_err(|_| no("LUKS1 has eight keyslots"))?,
        };
    next.validate()
        .map_err(|error| HeaderError::Unsupported(format!("the keyslots do not fit: {error}")))?;
    let mut plan = WritePlan::default();
    let mut first_block = next.to_bytes().to_vec();
    first_block.resize(4096, 0);
    plan.write(0, first_block);
    plan.flush();
    // Neither copy of the old header may be found later.
    plan.wipe(luks2::ALIGNMENT..old.hdr_size * 2)?;
    Ok((plan, next))
}

/// Checks that a header uses one hash and one cipher for everything, as LUKS1 does.
fn luks1_keyslot(
    keyslot: &Luks2Keyslot,
    hash: Hash,
    segment: &luks2::CryptSegment,
) -> Result<luks1::Keyslot, HeaderError> {
    let no = |reason: &str| HeaderError::Unsupported(reason.to_owned());
    let Kdf::Pbkdf2 {
        hash: kdf_hash,
        iterations,
        salt,
    } = &keyslot.kdf
    else {
        return Err(no(
            "LUKS1 has only PBKDF2, and a keyslot has Argon2: change it to PBKDF2 first",
        ));
    };
    if *kdf_hash != hash || keyslot.af.hash != hash {
        return Err(no("LUKS1 has one hash for its keyslots and its digest"));
    }
    if keyslot.area.encryption != segment.encryption || keyslot.area.key_size != keyslot.key_size {
        return Err(no("LUKS1 has one cipher for its keyslots and its data"));
    }
    if keyslot.priority != Priority::Normal {
        return Err(no("LUKS1 has no keyslot priorities"));
    }
    Ok(luks1::Keyslot {
        active: true,
        iterations: *iterations,
        salt: salt
            .first_chunk()
            .copied()
            .ok_or_else(|| no("the salt of a keyslot is shorter than the 32 bytes of LUKS1"))?,
        key_material_offset: u32::try_from(keyslot.area.offset / SECTOR)
            .map_err(|_| no("a keyslot begins at 2 TiB or later, which LUKS1 cannot express"))?,
        stripes: keyslot.af.stripes,
    })
}

/// The first offset, aligned to 4096 bytes, at which `size` bytes are free.
fn first_gap(taken: &[Range<u64>], size: u64) -> Option<u64> {
    let mut start = 0_u64;
    loop {
        let end = start.checked_add(size)?;
        match taken
            .iter()
            .find(|range| range.start < end && start < range.end)
        {
            Some(range) => start = range.end.next_multiple_of(luks2::ALIGNMENT),
            None => return Some(start),
        }
    }
}
