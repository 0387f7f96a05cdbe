//! Repairs what the rest of a LUKS1 header determines: the magic, and the entries of keyslots that
//! are not in use.
//!
//! LUKS1 has no checksum, so nothing proves that a header with another magic is a header, or that a
//! keyslot with an unknown state was in use or not: a caller asks the user before it writes such a
//! repair. All programs clear the salt and the iterations when they disable a keyslot, so a keyslot
//! that has both was probably in use, and becomes active. The place and the stripes of a keyslot
//! that is not in use follow from the format and from the other keyslots, and no key material
//! depends on them. The other fields of a keyslot in use are never changed, since only a backup
//! contains their old bytes.

use alloc::vec::Vec;
use core::fmt;

use super::keyslot::{self, ACTIVE, DISABLED};
use super::{HEADER_SIZE, Header, KEYSLOTS, SECTOR_SIZE, STRIPES};
use crate::codec::Reader;
use crate::error::FormatError;
use crate::limits::Limits;
use crate::version::MAGIC;

/// The first key material of cryptsetup and QEMU, and its alignment, in sectors.
const ALIGNMENT: u32 = 8;

/// One repair of a LUKS1 header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fix {
    /// The magic was wrong.
    Magic,
    /// A field of a keyslot that is not in use.
    Keyslot {
        /// The keyslot.
        slot: usize,
        /// The name of the field.
        field: &'static str,
        /// The value before the repair.
        from: u32,
        /// The value after the repair.
        to: u32,
    },
}

impl Fix {
    /// Whether the rest of the header determines the repair, and no other reading of the damage
    /// could be the right one.
    pub fn is_certain(&self) -> bool {
        match self {
            Self::Magic => false,
            Self::Keyslot { field, .. } => *field != "active",
        }
    }

    /// The keyslot that was repaired, if it was one.
    pub fn slot(&self) -> Option<usize> {
        match self {
            Self::Magic => None,
            Self::Keyslot { slot, .. } => Some(*slot),
        }
    }
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("the magic was overwritten"),
            Self::Keyslot {
                slot,
                field: "active",
                from,
                to: ACTIVE,
            } => write!(
                f,
                "keyslot {slot} has the unknown state {from:#x}; it has a salt and iterations, so \
                 it is probably in use, and becomes active"
            ),
            Self::Keyslot {
                slot,
                field: "active",
                from,
                ..
            } => write!(
                f,
                "keyslot {slot} has the unknown state {from:#x}, and becomes disabled"
            ),
            Self::Keyslot {
                slot,
                field,
                from,
                to,
            } => write!(f, "keyslot {slot} has {field} {from} instead of {to}"),
        }
    }
}

impl Header {
    /// The first 592 bytes of a device after a repair, and what was repaired, if that makes a
    /// header whose parts agree and are supported.
    ///
    /// # Errors
    /// Returns the [`FormatError`] of what cannot be repaired.
    pub fn repaired(bytes: &[u8], limits: &Limits) -> Result<(Vec<u8>, Vec<Fix>), FormatError> {
        let mut reader = Reader::new(bytes, 0);
        let mut bytes = reader.bytes(HEADER_SIZE, "header")?.to_vec();
        let mut fixes = Vec::new();
        if !bytes.starts_with(&MAGIC) {
            put(&mut bytes, 0, &MAGIC);
            fixes.push(Fix::Magic);
        }
        // A damaged state is first read as disabled.
        let mut states = Vec::new();
        for slot in 0..KEYSLOTS {
            let at = keyslot_at(slot);
            let field = keyslot::field(slot, "active");
            let state = Reader::new(bytes.get(at..).unwrap_or_default(), at as u64).u32(&field)?;
            states.push(state);
            if state != ACTIVE && state != DISABLED {
                put(&mut bytes, at, &DISABLED.to_be_bytes());
            }
        }
        let mut header = Self::read(&bytes)?;
        for (slot, state) in states.into_iter().enumerate() {
            if state != ACTIVE && state != DISABLED {
                let to = match header.was_in_use(slot) {
                    true => ACTIVE,
                    false => DISABLED,
                };
                put(&mut bytes, keyslot_at(slot), &to.to_be_bytes());
                if let Some(keyslot) = header.keyslots.get_mut(slot) {
                    keyslot.active = to == ACTIVE;
                }
                fixes.push(fix(slot, "active", state, to));
            }
        }
        header.check_usable()?;
        let places = header.places();
        for (slot, place) in places.into_iter().enumerate() {
            let (Some(place), Some(keyslot)) = (place, header.keyslots.get_mut(slot)) else {
                continue;
            };
            let (offset, stripes) = (keyslot.key_material_offset, keyslot.stripes);
            if offset != place {
                keyslot.key_material_offset = place;
                put_word(&mut bytes, slot, keyslot::KEY_MATERIAL_AT, place);
                fixes.push(fix(slot, "key material at sector", offset, place));
            }
            if stripes != STRIPES {
                keyslot.stripes = STRIPES;
                put_word(&mut bytes, slot, keyslot::STRIPES_AT, STRIPES);
                fixes.push(fix(slot, "stripes", stripes, STRIPES));
            }
        }
        Self::parse(&bytes, limits)?;
        Ok((bytes, fixes))
    }

    /// Whether a keyslot with an unknown state was probably in use: it has a salt and iterations,
    /// and the rest of its entry is sound.
    fn was_in_use(&self, slot: usize) -> bool {
        let mut header = self.clone();
        let Some(keyslot) = header.keyslots.get_mut(slot) else {
            return false;
        };
        keyslot.active = true;
        let has_key = keyslot.iterations > 0 && keyslot.salt != [0; 32];
        has_key && header.is_sound(slot)
    }

    /// Where the key material of each damaged keyslot that is not in use belongs. `None` for a
    /// keyslot that is in use, or is not damaged.
    fn places(&self) -> [Option<u32>; KEYSLOTS] {
        let sound: Vec<usize> = (0..KEYSLOTS).filter(|&slot| self.is_sound(slot)).collect();
        let offset = |slot: usize| match self.keyslots.get(slot) {
            Some(keyslot) => keyslot.key_material_offset,
            None => 0,
        };
        // The places of all programs are one line. With two sound keyslots it is known.
        let line = sound.split_first().and_then(|(&first, rest)| {
            let &second = rest.first()?;
            let steps = u32::try_from(second.checked_sub(first)?).ok()?;
            let step = offset(second)
                .checked_sub(offset(first))?
                .checked_div(steps)?;
            let start = offset(first).checked_sub(step.checked_mul(u32::try_from(first).ok()?)?)?;
            Some((start, step))
        });
        let on = |(start, step): (u32, u32), slot: usize| {
            start.checked_add(step.checked_mul(u32::try_from(slot).ok()?)?)
        };
        let line = line.filter(|line| {
            sound
                .iter()
                .all(|&slot| on(*line, slot) == Some(offset(slot)))
        });
        let line = line.or_else(|| {
            let material = u64::from(self.key_bytes).checked_mul(u64::from(STRIPES))?;
            let sectors = u32::try_from(material.div_ceil(SECTOR_SIZE)).ok()?;
            Some((ALIGNMENT, sectors.checked_next_multiple_of(ALIGNMENT)?))
        });
        core::array::from_fn(|slot| {
            let damaged = self
                .keyslots
                .get(slot)
                .is_some_and(|keyslot| !keyslot.active && !sound.contains(&slot));
            line.filter(|_| damaged).and_then(|line| on(line, slot))
        })
    }

    /// Whether the entry of a keyslot has the right stripes, and its key material does not overlap
    /// the header, the payload, or that of another keyslot. Of two that overlap, the one in use is
    /// sound.
    fn is_sound(&self, slot: usize) -> bool {
        let Some(keyslot) = self.keyslots.get(slot) else {
            return false;
        };
        let area = self.area(slot);
        let inside = area.start >= HEADER_SIZE as u64
            && (self.payload_offset == 0 || area.end <= self.data_offset());
        let free = (0..KEYSLOTS).filter(|&other| other != slot).all(|other| {
            let there = self.area(other);
            let overlap = area.start < there.end && there.start < area.end;
            let weaker = self
                .keyslots
                .get(other)
                .is_some_and(|other| other.stripes != STRIPES || keyslot.active && !other.active);
            !overlap || weaker
        });
        keyslot.stripes == STRIPES && inside && free
    }
}

fn fix(slot: usize, field: &'static str, from: u32, to: u32) -> Fix {
    Fix::Keyslot {
        slot,
        field,
        from,
        to,
    }
}

fn keyslot_at(slot: usize) -> usize {
    usize::try_from(super::header::keyslot_at(slot)).unwrap_or(usize::MAX)
}

fn put_word(bytes: &mut [u8], slot: usize, field_at: u64, value: u32) {
    let at = keyslot_at(slot).saturating_add(usize::try_from(field_at).unwrap_or(usize::MAX));
    put(bytes, at, &value.to_be_bytes());
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(what) {
        *to = *from;
    }
}
