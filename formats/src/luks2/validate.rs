//! Validates the relations between objects: areas, references, and the order of segments.
//!
//! Errors contain the path of the member at fault. The caller that has the text adds the offset.

use alloc::format;
use alloc::string::String;
use core::ops::Range;

use super::ALIGNMENT;
use super::digest::Digest;
use super::keyslot::Keyslot;
use super::segment::{Segment, SegmentSize};
use super::view::View;
use crate::error::FormatError;

/// Checks every rule, in the order of the sections of the specification.
pub(super) fn all(view: &View) -> Result<(), FormatError> {
    areas(view)?;
    references(view)?;
    keyslot_digests(view)?;
    reencryption(view)?;
    segment_order(view)?;
    segment_places(view)?;
    segment_digests(view)?;
    key_sizes(view)
}

/// Checks that areas are aligned, inside of the keyslots area, and do not overlap.
fn areas(view: &View) -> Result<(), FormatError> {
    let whole = view.config.keyslots_area();
    for (id, keyslot) in &view.keyslots {
        let area = keyslot.area();
        let refuse = |cause: String| malformed(format!("keyslots.{id}.area.offset"), cause);
        if !area.end.is_multiple_of(ALIGNMENT) && area.start.is_multiple_of(ALIGNMENT) {
            let size = area.end.saturating_sub(area.start);
            return malformed(
                format!("keyslots.{id}.area.size"),
                format!("{size} is not a multiple of {ALIGNMENT}"),
            );
        }
        if !area.start.is_multiple_of(ALIGNMENT) {
            return refuse(format!("{} is not a multiple of {ALIGNMENT}", area.start));
        }
        if area.start < whole.start || area.end > whole.end {
            return refuse(format!(
                "the area at bytes {} is outside of the keyslots area at bytes {}",
                show(&area),
                show(&whole)
            ));
        }
        for (other, before) in view.keyslots.range(..id) {
            if overlap(&area, &before.area()) {
                return refuse(format!(
                    "the area at bytes {} overlaps that of keyslot {other}",
                    show(&area)
                ));
            }
        }
    }
    Ok(())
}

/// Checks that the objects to which digests and tokens refer exist.
fn references(view: &View) -> Result<(), FormatError> {
    for (id, digest) in &view.digests {
        existing(
            &digest.keyslots,
            &format!("digests.{id}.keyslots"),
            "keyslot",
            |id| view.keyslots.contains_key(id),
        )?;
        existing(
            &digest.segments,
            &format!("digests.{id}.segments"),
            "segment",
            |id| view.segments.contains_key(id),
        )?;
    }
    for (id, token) in &view.tokens {
        existing(
            &token.keyslots,
            &format!("tokens.{id}.keyslots"),
            "keyslot",
            |id| view.keyslots.contains_key(id),
        )?;
    }
    Ok(())
}

fn existing(
    ids: &[u32],
    path: &str,
    what: &str,
    exists: impl Fn(&u32) -> bool,
) -> Result<(), FormatError> {
    match ids.iter().enumerate().find(|(_, id)| !exists(id)) {
        Some((index, id)) => malformed(
            format!("{path}.{index}"),
            format!("there is no {what} {id}"),
        ),
        None => Ok(()),
    }
}

/// Checks that each keyslot that holds a key belongs to exactly one digest, and every other keyslot
/// to at most one.
fn keyslot_digests(view: &View) -> Result<(), FormatError> {
    for (id, keyslot) in &view.keyslots {
        let digests = view
            .digests
            .values()
            .filter(|digest| digest.keyslots.contains(id))
            .count();
        let needs_one = matches!(keyslot, Keyslot::Luks2(_));
        if digests == 0 && needs_one {
            return malformed(format!("keyslots.{id}"), "the keyslot belongs to no digest");
        }
        if digests > 1 {
            return malformed(
                format!("keyslots.{id}"),
                format!("the keyslot belongs to {digests} digests"),
            );
        }
    }
    Ok(())
}

/// Checks that there is a reencrypt keyslot if and only if there is the requirement that announces
/// it.
fn reencryption(view: &View) -> Result<(), FormatError> {
    let mut keyslots = view
        .keyslots
        .iter()
        .filter(|(_, keyslot)| matches!(keyslot, Keyslot::Reencrypt(_)));
    let announced = view.config.requirements().online_reencrypt.is_some();
    match (keyslots.next(), announced) {
        (Some((id, _)), false) => malformed(
            format!("keyslots.{id}.type"),
            "a reencrypt keyslot without the requirement online-reencrypt",
        ),
        (None, true) => malformed(
            "config.requirements.mandatory",
            "online-reencrypt is required, but there is no reencrypt keyslot",
        ),
        (_, _) => match keyslots.next() {
            Some((id, _)) => malformed(format!("keyslots.{id}.type"), "a second reencrypt keyslot"),
            None => Ok(()),
        },
    }
}

/// Checks that segments are numbered from 0 without gaps, with those that map data first. Only the
/// last of these may be dynamic.
fn segment_order(view: &View) -> Result<(), FormatError> {
    if view.data_segments().next().is_none() {
        return malformed("segments", "there is no segment that maps data");
    }
    let mut backups = false;
    for ((id, segment), expected) in view.segments.iter().zip(0_u32..) {
        if *id != expected {
            return malformed(
                "segments",
                format!("there is no segment {expected}, but a segment {id}"),
            );
        }
        if backups && !segment.is_backup() {
            return malformed(
                format!("segments.{id}"),
                "a segment that maps data comes after a backup segment",
            );
        }
        backups = segment.is_backup();
    }
    let last = view.data_segments().last().map(|(id, _)| id);
    for (id, segment) in view.data_segments() {
        if segment.size() == SegmentSize::Dynamic && Some(id) != last {
            return malformed(
                format!("segments.{id}.size"),
                "only the last segment that maps data may be dynamic",
            );
        }
    }
    Ok(())
}

/// Checks that segments that map data do not overlap, and that they start after the keyslots area
/// unless the header is detached.
fn segment_places(view: &View) -> Result<(), FormatError> {
    let metadata_end = view.config.keyslots_area().end;
    let detached = view.data_offset() == 0;
    for (id, segment) in &view.segments {
        let Some(range) = range(segment) else {
            return malformed(
                format!("segments.{id}.size"),
                "offset and size together are over 64 bits",
            );
        };
        if segment.is_backup() {
            continue;
        }
        if !detached && range.start < metadata_end {
            let cause = format!(
                "the data at byte {} overlaps the metadata, which ends at byte {metadata_end}",
                range.start
            );
            return malformed(format!("segments.{id}.offset"), cause);
        }
        for (other, before) in view.data_segments().take_while(|(other, _)| other < id) {
            if self::range(before).is_some_and(|before| overlap(&range, &before)) {
                return malformed(
                    format!("segments.{id}.offset"),
                    format!("the segment overlaps segment {other}"),
                );
            }
        }
    }
    Ok(())
}

/// Checks that each encrypted segment has one digest. During a reencryption it may have those of
/// both keys.
fn segment_digests(view: &View) -> Result<(), FormatError> {
    let several = view.config.requirements().reencrypt;
    for (id, segment) in &view.segments {
        let digests = view
            .digests
            .values()
            .filter(|digest| digest.segments.contains(id))
            .count();
        if digests == 0 && matches!(segment, Segment::Crypt(_)) {
            return malformed(
                format!("segments.{id}"),
                "the encrypted segment belongs to no digest",
            );
        }
        if digests > 1 && !several {
            return malformed(
                format!("segments.{id}"),
                format!("the segment belongs to {digests} digests"),
            );
        }
    }
    Ok(())
}

/// Checks that the size of a keyslot's key fits the cipher of each of its segments.
fn key_sizes(view: &View) -> Result<(), FormatError> {
    for digest in view.digests.values() {
        for (id, keyslot) in bound_keyslots(view, digest) {
            let Some(keyslot) = keyslot.as_luks2() else {
                continue;
            };
            let bytes = usize::try_from(keyslot.key_size).unwrap_or(usize::MAX);
            let segments = digest
                .segments
                .iter()
                .filter_map(|segment| view.segments.get(segment)?.as_crypt());
            for segment in segments {
                if let Err(refusal) = segment.encryption.check_key_size(bytes) {
                    return malformed(format!("keyslots.{id}.key_size"), format!("{refusal}"));
                }
            }
        }
    }
    Ok(())
}

fn bound_keyslots<'a>(
    view: &'a View,
    digest: &'a Digest,
) -> impl Iterator<Item = (u32, &'a Keyslot)> {
    digest
        .keyslots
        .iter()
        .filter_map(|id| view.keyslots.get(id).map(|keyslot| (*id, keyslot)))
}

/// The range of a segment in bytes. A dynamic one has no end.
fn range(segment: &Segment) -> Option<Range<u64>> {
    let start = segment.offset();
    match segment.size() {
        SegmentSize::Dynamic => Some(start..u64::MAX),
        SegmentSize::Fixed(size) => start.checked_add(size).map(|end| start..end),
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

fn show(range: &Range<u64>) -> String {
    format!("{}..{}", range.start, range.end)
}

fn malformed(path: impl Into<String>, cause: impl Into<String>) -> Result<(), FormatError> {
    Err(FormatError::malformed(path, 0, cause))
}
