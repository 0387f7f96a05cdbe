//! The metadata of a LUKS2 header: the JSON, and the typed view that is derived from it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use crate::json::{Value, json};

use super::authenticated::AuthenticatedSegment;
use super::config::{Config, Requirements};
use super::digest::{Digest, OtherDigest};
use super::edit::Draft;
use super::keyslot::{Keyslot, Priority};
use super::segment::{CryptSegment, OtherSegment, Segment};
use super::token::Token;
use super::view::View;
use super::{ALIGNMENT, text, validate};
use crate::error::{FormatError, Kind};

/// The metadata of one header. The JSON is authoritative, and the accessors return a view that was
/// derived from it.
#[derive(Clone, Debug)]
pub struct Metadata {
    value: Value,
    view: View,
}

/// The view is that of the JSON. Only the offsets in what is not understood differ between copies.
impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// The sizes of new metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewConfig {
    /// The size of the JSON area: one of [`HEADER_SIZES`](super::HEADER_SIZES) minus 4096.
    pub json_size: u64,
    /// The size of the keyslots area: a multiple of 4096, up to 128 MiB.
    pub keyslots_size: u64,
}

impl Metadata {
    /// Reads and validates a JSON area (text, a NUL, and NULs to its end) at offset `area_offset`
    /// of the device, in a header of `hdr_size` bytes whose checksum matches.
    ///
    /// An object that this crate cannot use is kept, and [`not_understood`](Self::not_understood)
    /// says why.
    ///
    /// # Errors
    /// Returns a [`FormatError`] of kind [`NotUnderstood`](Kind::NotUnderstood) that names the
    /// first member which breaks a rule, and its offset on the device.
    pub fn parse(area: &[u8], area_offset: u64, hdr_size: u64) -> Result<Self, FormatError> {
        let (text, value) = text::parse(area, area_offset).map_err(intact)?;
        let place =
            |refusal: &FormatError| area_offset.saturating_add(text::locate(text, &refusal.field));
        let mut view = validated(&value, hdr_size).map_err(|refusal| FormatError {
            offset: place(&refusal),
            ..intact(refusal)
        })?;
        for refusal in view.refusals_mut() {
            *refusal = FormatError {
                offset: place(refusal),
                ..intact(refusal.clone())
            };
        }
        Ok(Self { value, view })
    }

    /// Metadata with empty sections. It is valid only after the first [`edit`](Self::edit), which
    /// adds at least a segment and its digest.
    pub fn new(config: NewConfig) -> Self {
        let NewConfig {
            json_size,
            keyslots_size,
        } = config;
        let value = json!({
            "keyslots": {},
            "tokens": {},
            "segments": {},
            "digests": {},
            "config": { "json_size": json_size.to_string(), "keyslots_size": keyslots_size.to_string() },
        });
        let config = Config {
            json_size,
            keyslots_size,
            flags: Vec::new(),
            requirements: Vec::new(),
        };
        let view = View::new(config);
        Self { value, view }
    }

    /// Checks the rules that the metadata has to meet before it is written. This succeeds after a
    /// parse and after an edit, but not for [`new`](Self::new) metadata.
    ///
    /// # Errors
    /// Returns a [`FormatError`] that names the first rule which is broken.
    pub fn validate(&self) -> Result<(), FormatError> {
        validated(&self.value, self.hdr_size()).map(drop)
    }

    /// Why objects are kept, but cannot be used, and why the volume is not opened: what is not
    /// supported, and what breaks a rule without which the metadata still has a meaning. Empty for
    /// a header that can be used as a whole.
    pub fn not_understood(&self) -> impl Iterator<Item = &FormatError> {
        self.view.refusals()
    }

    /// The JSON.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The JSON as it is stored: without spaces, in its original order.
    pub fn to_text(&self) -> String {
        self.value.to_string()
    }

    /// The JSON with indentation, for people.
    pub fn to_pretty_text(&self) -> String {
        format!("{:#}", self.value.shown())
    }

    /// The size of one copy of the header (binary header and JSON) that this metadata belongs to,
    /// in bytes.
    pub fn hdr_size(&self) -> u64 {
        self.view.config.json_size.saturating_add(ALIGNMENT)
    }

    /// The range of the keyslots area in bytes.
    pub fn keyslots_area(&self) -> Range<u64> {
        self.view.config.keyslots_area()
    }

    /// The keyslots.
    pub fn keyslots(&self) -> &BTreeMap<u32, Keyslot> {
        &self.view.keyslots
    }

    /// The segments, including backup segments.
    pub fn segments(&self) -> &BTreeMap<u32, Segment> {
        &self.view.segments
    }

    /// The digests that can be computed.
    pub fn digests(&self) -> &BTreeMap<u32, Digest> {
        &self.view.digests
    }

    /// The digests that cannot be computed.
    pub fn other_digests(&self) -> &BTreeMap<u32, OtherDigest> {
        &self.view.other_digests
    }

    /// The tokens.
    pub fn tokens(&self) -> &BTreeMap<u32, Token> {
        &self.view.tokens
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.view.config
    }

    /// The mandatory requirements by kind.
    pub fn requirements(&self) -> Requirements {
        self.view.config.requirements()
    }

    /// The digest that a keyslot belongs to, if it can be computed.
    pub fn digest_of_keyslot(&self, keyslot: u32) -> Option<(u32, &Digest)> {
        self.view
            .digest(|digest| digest.keyslots.contains(&keyslot))
    }

    /// Whether a keyslot and a segment belong to the same digest, which need not be computable.
    pub fn belong_together(&self, keyslot: u32, segment: u32) -> bool {
        self.view.references().any(|(_, keyslots, segments)| {
            keyslots.contains(&keyslot) && segments.contains(&segment)
        })
    }

    /// The digest that a segment belongs to, if it can be computed.
    pub fn digest_of_segment(&self, segment: u32) -> Option<(u32, &Digest)> {
        self.view
            .digest(|digest| digest.segments.contains(&segment))
    }

    /// The offset of the data in bytes: the start of the lowest segment that is not a backup. 0 for
    /// a detached header.
    pub fn data_offset(&self) -> u64 {
        self.view.data_offset()
    }

    /// The segments that map data at present, lowest number first.
    pub fn data_segments(&self) -> impl Iterator<Item = (u32, &Segment)> {
        self.view.data_segments()
    }

    /// The segment of a volume with authenticated encryption. Nothing if there are no tags, or more
    /// than one segment.
    ///
    /// # Errors
    /// Returns the first of [`not_understood`](Self::not_understood) that concerns the relations
    /// between objects.
    pub fn authenticated_segment(&self) -> Result<Option<&AuthenticatedSegment>, FormatError> {
        let mut segments = self.data_segments();
        match (segments.next(), segments.next(), &self.view.obstacle) {
            (Some((_, Segment::Authenticated(_))), None, Some(obstacle)) => Err(obstacle.clone()),
            (Some((_, Segment::Authenticated(segment))), None, None) => Ok(Some(segment)),
            _ => Ok(None),
        }
    }

    /// The encrypted segment of a volume without a reencryption in progress and without tags.
    ///
    /// # Errors
    /// Returns a [`FormatError`] of kind [`Unsupported`](Kind::Unsupported) for a reencryption in
    /// progress, a segment that is not encrypted, one that a drive encrypts, or one with tags.
    /// Returns the first of [`not_understood`](Self::not_understood) that concerns the segment or
    /// the relations between objects.
    pub fn data_segment(&self) -> Result<(u32, &CryptSegment), FormatError> {
        if let Some(obstacle) = &self.view.obstacle {
            return Err(obstacle.clone());
        }
        let mut segments = self.data_segments();
        match (segments.next(), segments.next()) {
            (Some((id, Segment::Crypt(segment))), None) => Ok((id, segment)),
            (Some((id, Segment::Authenticated(_))), None) => Err(FormatError::unsupported(
                format!("segments.{id}.integrity"),
                0,
                "volumes with authenticated encryption (dm-integrity) are only read",
            )),
            (Some((id, Segment::Linear(_))), None) => Err(FormatError::unsupported(
                format!("segments.{id}.type"),
                0,
                "the segment is not encrypted",
            )),
            (Some((_, Segment::Other(OtherSegment { why: Some(why), .. }))), None) => {
                Err(why.clone())
            }
            (Some((id, Segment::Other(segment))), None) => {
                let cause = format!(
                    "segments of type {} are not supported",
                    super::node::excerpt(&segment.kind)
                );
                Err(FormatError::unsupported(
                    format!("segments.{id}.type"),
                    0,
                    cause,
                ))
            }
            (Some(_), Some(_)) => {
                let cause = "there is more than one: a reencryption was not finished";
                Err(FormatError::unsupported("segments", 0, cause))
            }
            (None, _) => Err(FormatError::malformed("segments", 0, "there is none")),
        }
    }

    /// The lowest offset in the keyslots area, aligned to 4096 bytes, at which `size` bytes are
    /// free. The ranges in `also_avoid` count as used.
    pub fn free_area(&self, size: u64, also_avoid: &[Range<u64>]) -> Option<u64> {
        let whole = self.keyslots_area();
        let mut taken: Vec<Range<u64>> = self.view.keyslots.values().map(Keyslot::area).collect();
        taken.extend(also_avoid.iter().cloned());
        taken.sort_by_key(|range| range.start);
        let mut start = whole.start;
        for range in taken {
            if start.checked_add(size)? <= range.start {
                break;
            }
            start = start.max(range.end.checked_next_multiple_of(ALIGNMENT)?);
        }
        (start.checked_add(size)? <= whole.end).then_some(start)
    }

    /// Applies several changes as one. They are validated together. If a change or the result is
    /// refused, nothing changes. What was [not understood](Self::not_understood) before stays so.
    /// The result breaks no rule of cryptsetup that the metadata has not broken before.
    ///
    /// # Errors
    /// Returns the [`FormatError`] of the first refused change, or of the first rule that the
    /// result breaks and the metadata has not broken before.
    pub fn edit(
        &mut self,
        change: impl FnOnce(&mut Draft) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        let mut draft = Draft::new(self.value.clone());
        change(&mut draft)?;
        // Parse the text again, so that everything that is written can be read.
        let text = text::fitting(&draft.finish(), self.view.config.json_size)?;
        let value = text::parse_text(&text, 0)?;
        let mut view = validated(&value, self.hdr_size())?;
        for new in view.refusals_mut() {
            let mut before = self.view.refusals();
            match before.find(|old| (&old.field, &old.cause) == (&new.field, &new.cause)) {
                Some(old) => *new = old.clone(),
                None => return Err(new.clone()),
            }
        }
        let mut refused = validate::refused_by_cryptsetup(&value, &view);
        let new = refused.find(|new| {
            !validate::refused_by_cryptsetup(&self.value, &self.view).any(|old| old == *new)
        });
        if let Some(new) = new {
            return Err(new);
        }
        drop(refused);
        *self = Self { value, view };
        Ok(())
    }

    /// Adds or changes a keyslot that a digest already names. [`add_keyslot`](Self::add_keyslot)
    /// adds a new one.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn set_keyslot(&mut self, id: u32, keyslot: &Keyslot) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_keyslot(id, keyslot))
    }

    /// Adds a keyslot that holds the key of `digest`.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn add_keyslot(
        &mut self,
        id: u32,
        keyslot: &Keyslot,
        digest: u32,
    ) -> Result<(), FormatError> {
        self.edit(|draft| {
            draft.set_keyslot(id, keyslot)?;
            draft.assign_keyslot_to_digest(id, Some(digest))
        })
    }

    /// Removes a keyslot, also from digests and tokens.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn remove_keyslot(&mut self, id: u32) -> Result<(), FormatError> {
        self.edit(|draft| draft.remove_keyslot(id))
    }

    /// Adds or changes a segment.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn set_segment(&mut self, id: u32, segment: &Segment) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_segment(id, segment))
    }

    /// Adds or changes a digest.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn set_digest(&mut self, id: u32, digest: &Digest) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_digest(id, digest))
    }

    /// Moves a keyslot to a digest, or removes it from all digests.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn assign_keyslot_to_digest(
        &mut self,
        keyslot: u32,
        digest: Option<u32>,
    ) -> Result<(), FormatError> {
        self.edit(|draft| draft.assign_keyslot_to_digest(keyslot, digest))
    }

    /// Adds a token, or replaces all of it.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn set_token(&mut self, id: u32, token: Value) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_token(id, token))
    }

    /// Removes a token.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn remove_token(&mut self, id: u32) -> Result<(), FormatError> {
        self.edit(|draft| draft.remove_token(id))
    }

    /// Sets whether a token is for a keyslot.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn assign_token(
        &mut self,
        id: u32,
        keyslot: u32,
        assigned: bool,
    ) -> Result<(), FormatError> {
        self.edit(|draft| draft.assign_token(id, keyslot, assigned))
    }

    /// Sets the priority of a keyslot.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn set_priority(&mut self, keyslot: u32, priority: Priority) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_priority(keyslot, priority))
    }

    /// Sets the flags of the config.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn set_flags(&mut self, flags: Vec<String>) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_flags(&flags))
    }

    /// Sets the mandatory requirements.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn set_requirements(&mut self, requirements: Vec<String>) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_requirements(&requirements))
    }
}

/// The view of metadata that has a meaning.
fn validated(value: &Value, hdr_size: u64) -> Result<View, FormatError> {
    let mut view = View::derive(value, hdr_size)?;
    validate::structure(&view)?;
    view.obstacle = validate::opening(&view).err();
    Ok(view)
}

/// The same refusal of bytes whose checksum matches.
fn intact(refusal: FormatError) -> FormatError {
    let kind = match refusal.kind {
        Kind::Malformed | Kind::NotUnderstood => Kind::NotUnderstood,
        kind @ (Kind::Unsupported | Kind::OverLimit) => kind,
    };
    FormatError { kind, ..refusal }
}
