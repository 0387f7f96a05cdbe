//! Validates the relations between objects: areas, references, and the order of segments.
//!
//! Errors contain the path of the member at fault. The caller that has the text adds the offset. A
//! rule that cryptsetup does not have is only checked where the volume is opened, so that each
//! header which cryptsetup shows can be shown and saved here too.

use alloc::format;
use alloc::string::String;
use core::ops::Range;

use super::ALIGNMENT;
use super::digest::Digest;
use super::keyslot::Keyslot;
use super::segment::{HOT, Segment, SegmentSize};
use super::view::View;
use crate::error::FormatError;
use crate::json::{Object, Value};

/// Checks the rules without which the metadata has no meaning, in the order of the specification.
pub(super) fn structure(view: &View) -> Result<(), FormatError> {
    areas(view)?;
    references(view)?;
    keyslot_digests(view)?;
    reencryption(view)?;
    segment_order(view)?;
    segment_places(view)
}

/// Checks the rules that only a volume which is opened has to meet. cryptsetup shows a header that
/// breaks them.
pub(super) fn opening(view: &View) -> Result<(), FormatError> {
    area_sizes(view)?;
    other_keyslot_digests(view)?;
    segment_ends(view)?;
    segment_digests(view)?;
    key_sizes(view)
}

/// How deep the JSON may be nested for cryptsetup, whose parser (json-c) stops there by default.
/// The metadata as a whole is the first level, and a number or a string is a level too.
const DEPTH_OF_CRYPTSETUP: usize = 32;

/// What cryptsetup refuses to read, and with it the whole header. Such headers are opened here, but
/// a change makes none of them.
pub(super) fn refused_by_cryptsetup<'a>(
    value: &'a Value,
    view: &'a View,
) -> impl Iterator<Item = FormatError> + 'a {
    // Of a string with a NUL, cryptsetup looks only at what is before it.
    let nameless = (view.tokens.iter())
        .filter(|(_, token)| token.kind.is_empty() || token.kind.starts_with('\0'))
        .map(|(id, _)| {
            let path = format!("tokens.{id}.type");
            FormatError::malformed(path, 0, "is empty, which cryptsetup does not accept")
        });
    let sections = value.as_object().into_iter().flat_map(Object::iter);
    let objects = sections.flat_map(|(section, members)| {
        let members = members.as_object().into_iter().flat_map(Object::iter);
        members.map(move |(name, member)| (section, name, member))
    });
    let deep = objects
        .filter(|(_, _, member)| depth(member) > DEPTH_OF_CRYPTSETUP.saturating_sub(2))
        .map(|(section, name, _)| {
            let cause = format!(
                "is nested too deep: cryptsetup reads {DEPTH_OF_CRYPTSETUP} levels, of which the \
                 first two are outside of this"
            );
            FormatError::malformed(format!("{section}.{name}"), 0, cause)
        });
    nameless.chain(deep)
}

/// The levels of a value, which the parser has limited.
fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Array(elements) => elements.iter().map(depth).max(),
        Value::Object(members) => members.iter().map(|(_, member)| depth(member)).max(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    below.unwrap_or(0).saturating_add(1)
}

/// Checks that areas are aligned, inside of the keyslots area, and do not overlap.
fn areas(view: &View) -> Result<(), FormatError> {
    let whole = view.config.keyslots_area();
    for (id, keyslot) in &view.keyslots {
        let area = keyslot.area();
        let refuse = |cause: String| malformed(format!("keyslots.{id}.area.offset"), cause);
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

/// Checks that the sizes of areas are aligned.
fn area_sizes(view: &View) -> Result<(), FormatError> {
    for (id, keyslot) in &view.keyslots {
        let area = keyslot.area();
        if !area.end.is_multiple_of(ALIGNMENT) {
            let size = area.end.saturating_sub(area.start);
            return malformed(
                format!("keyslots.{id}.area.size"),
                format!("{size} is not a multiple of {ALIGNMENT}"),
            );
        }
    }
    Ok(())
}

/// Checks that the objects to which digests and tokens refer exist.
fn references(view: &View) -> Result<(), FormatError> {
    for (id, keyslots, segments) in view.references() {
        existing(
            keyslots,
            &format!("digests.{id}.keyslots"),
            "keyslot",
            |id| view.keyslots.contains_key(id),
        )?;
        existing(
            segments,
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

/// Checks that each keyslot that holds a key belongs to exactly one digest.
fn keyslot_digests(view: &View) -> Result<(), FormatError> {
    keyslots_have(view, |kind| kind == Keyslot::LUKS2, 1)
}

/// Checks that every other keyslot belongs to at most one digest.
fn other_keyslot_digests(view: &View) -> Result<(), FormatError> {
    keyslots_have(view, |kind| kind != Keyslot::LUKS2, 0)
}

/// Checks that each keyslot of these types belongs to `least` digests, or to one.
fn keyslots_have(view: &View, of: impl Fn(&str) -> bool, least: usize) -> Result<(), FormatError> {
    let keyslots = view.keyslots.iter();
    for (id, _) in keyslots.filter(|(_, keyslot)| of(keyslot.kind())) {
        let digests = view
            .references()
            .filter(|(_, keyslots, _)| keyslots.contains(id))
            .count();
        if digests < least {
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
        .filter(|(_, keyslot)| keyslot.kind() == Keyslot::REENCRYPT);
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
    for (id, segment) in view.data_segments() {
        let range = range(segment);
        if !detached && range.start < metadata_end {
            let cause = format!(
                "the data at byte {} overlaps the metadata, which ends at byte {metadata_end}",
                range.start
            );
            return malformed(format!("segments.{id}.offset"), cause);
        }
        for (other, before) in view.data_segments().take_while(|(other, _)| *other < id) {
            if overlap(&range, &self::range(before)) {
                return malformed(
                    format!("segments.{id}.offset"),
                    format!("the segment overlaps segment {other}"),
                );
            }
        }
    }
    Ok(())
}

/// Checks that the end of each segment can be stated.
fn segment_ends(view: &View) -> Result<(), FormatError> {
    for (id, segment) in &view.segments {
        if let SegmentSize::Fixed(size) = segment.size()
            && segment.offset().checked_add(size).is_none()
        {
            return malformed(
                format!("segments.{id}.size"),
                "offset and size together are over 64 bits",
            );
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
            .references()
            .filter(|(_, _, segments)| segments.contains(id))
            .count();
        let is_encrypted = matches!(segment, Segment::Crypt(_) | Segment::Authenticated(_));
        if digests == 0 && is_encrypted {
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

/// Checks that the size of a keyslot's key fits the cipher of each of its segments. A zone in
/// reencryption belongs to both keys, and has the cipher of one.
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
                .filter_map(|segment| view.segments.get(segment)?.as_crypt())
                .filter(|segment| !segment.flags.iter().any(|flag| flag == HOT));
            for segment in segments {
                if let Err(refusal) = segment.encryption.check_key_size(bytes) {
                    return malformed(format!("keyslots.{id}.key_size"), format!("{refusal}"));
                }
            }
            let segments = digest.segments.iter();
            for segment in segments.filter_map(|segment| view.segments.get(segment)) {
                if let Segment::Authenticated(segment) = segment
                    && !segment.encryption.key_sizes().contains(&bytes)
                {
                    let cause = format!("{} has no keys of {bytes} bytes", segment.encryption);
                    return malformed(format!("keyslots.{id}.key_size"), cause);
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
fn range(segment: &Segment) -> Range<u64> {
    let start = segment.offset();
    match segment.size() {
        SegmentSize::Dynamic => start..u64::MAX,
        SegmentSize::Fixed(size) => start..start.saturating_add(size),
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
