//! What an undo record proves after another program has changed the header.
//!
//! The header and the key material of each keyslot are judged separately. A change writes key
//! material before the header that refers to it, so another program may have changed the header in
//! between, and a keyslot there still is the old one, while its key material is overwritten. Where
//! each unit of the key material is old or new, the present header decides which of them it has to
//! be. The header itself is never written here.

use std::ops::Range;

use luksmith_formats::luks2::Position;

use super::record::{Found, UndoRecord};
use crate::backend::{Backend, IoError};
use crate::container::open::Loaded;
use crate::container::{Header, Health, KeyslotInfo};

/// How a change ends whose header another program has changed since.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The change had written nothing of a keyslot.
    NotBegun,
    /// All that the change wrote is there, or has been changed again since. It stays.
    Complete,
    /// The header stays, and these keyslots get their old key material back.
    PutBack {
        keyslots: Vec<u32>,
        areas: Vec<Range<u64>>,
    },
    /// The record does not prove which key material is right.
    Open,
}

/// The keyslots of the old header whose key material the change writes.
pub(super) fn keyslots(record: &UndoRecord, old: &Header) -> Vec<u32> {
    let written = old
        .keyslots()
        .into_iter()
        .filter(|keyslot| record.places().any(|place| overlap(&place, &keyslot.area)));
    written.map(|keyslot| keyslot.slot).collect()
}

/// Judges a storage with a unit that is neither old nor new. `old` is the header before the change,
/// and `present` the one that is there.
pub(super) fn judge(
    storage: &dyn Backend,
    record: &UndoRecord,
    old: Option<&Loaded>,
    present: Option<&Loaded>,
) -> Result<Judgement, IoError> {
    let Some(present) = present else {
        return Ok(Judgement::Open);
    };
    if is_one_copy_rewritten(storage, record, present)? {
        return Ok(Judgement::Complete);
    }
    match old {
        Some(old) => judge_keyslots(storage, record, &old.header, &present.header),
        None => Ok(Judgement::Open),
    }
}

/// Whether the change is complete, except that one copy of the LUKS2 header was written once more,
/// with the same content. cryptsetup does that when it opens a header whose copies are not equal.
fn is_one_copy_rewritten(
    storage: &dyn Backend,
    record: &UndoRecord,
    present: &Loaded,
) -> Result<bool, IoError> {
    let (Header::Luks2(header), Health::Good) = (&present.header, &present.health) else {
        return Ok(false);
    };
    let behind = header.hdr_size * 2..u64::MAX;
    if !matches!(record.find_in(storage, &behind)?, None | Some(Found::New)) {
        return Ok(false);
    }
    for position in Position::ALL {
        let start = position.offset(header.hdr_size);
        let copy = start..start + header.hdr_size;
        if record.covers(&copy) && record.find_in(storage, &copy)? == Some(Found::New) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn judge_keyslots(
    storage: &dyn Backend,
    record: &UndoRecord,
    old: &Header,
    present: &Header,
) -> Result<Judgement, IoError> {
    if !are_comparable(old, present) {
        return Ok(Judgement::Open);
    }
    let (old, present) = (old.keyslots(), present.keyslots());
    let is_in = |keyslots: &[KeyslotInfo], wanted: &KeyslotInfo| {
        keyslots.iter().any(|keyslot| is_same(keyslot, wanted))
    };
    let (mut numbers, mut areas, mut overwritten, mut any_new) = (vec![], vec![], false, false);
    for keyslot in &old {
        let Some(found) = record.find_in(storage, &keyslot.area)? else {
            continue;
        };
        let refers = |there: &KeyslotInfo| overlap(&there.area, &keyslot.area);
        match found {
            Found::Old | Found::New | Found::Mixed if is_in(&present, keyslot) => {
                overwritten |= found != Found::Old;
                numbers.push(keyslot.slot);
                areas.push(keyslot.area.clone());
            }
            Found::New if present.iter().any(refers) => any_new = true,
            _ => return Ok(Judgement::Open),
        }
    }
    // Keyslots that the change, or another program, has put into space that was free.
    for keyslot in &present {
        let took_free_space = !old.iter().any(|old| overlap(&old.area, &keyslot.area));
        match record.find_in(storage, &keyslot.area)? {
            Some(Found::New) if took_free_space => any_new = true,
            Some(_) if took_free_space => return Ok(Judgement::Open),
            _ => {}
        }
    }
    Ok(match (numbers.is_empty(), any_new) {
        (true, true) => Judgement::Complete,
        (false, false) if !overwritten => Judgement::NotBegun,
        (false, false) => Judgement::PutBack {
            keyslots: numbers,
            areas,
        },
        // A header with old and new keyslots is neither the one before the change nor the one after
        // it.
        (false, true) | (true, false) => Judgement::Open,
    })
}

/// Whether both headers have their keyslots in the same places, and each keyslot can be compared.
fn are_comparable(old: &Header, present: &Header) -> bool {
    match (old, present) {
        (Header::Luks1(_), Header::Luks1(_)) => true,
        (Header::Luks2(old), Header::Luks2(present)) => {
            let holds_keys_only = |header: &Header, all: usize| header.keyslots().len() == all;
            old.hdr_size == present.hdr_size
                && old.metadata.keyslots_area() == present.metadata.keyslots_area()
                && [old, present].into_iter().all(|header| {
                    let all = header.metadata.keyslots().len();
                    holds_keys_only(&Header::Luks2(header.clone()), all)
                })
        }
        _ => false,
    }
}

/// Whether the same passphrase opens both, given the same key material. A program that changes a
/// passphrase draws a new salt.
fn is_same(one: &KeyslotInfo, other: &KeyslotInfo) -> bool {
    let same_sealing = match (&one.sealing, &other.sealing) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    };
    same_sealing && one.area == other.area && one.key_size == other.key_size
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}
