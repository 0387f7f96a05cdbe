//! The metadata of a LUKS2 header: JSON, and the typed view that was derived from it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use crate::json::{Value, json};

use super::config::{Config, Requirements};
use super::digest::Digest;
use super::edit::Draft;
use super::keyslot::{Keyslot, Priority};
use super::segment::{CryptSegment, Segment};
use super::token::Token;
use super::view::View;
use super::{ALIGNMENT, text, validate};
use crate::error::FormatError;

/// The metadata of one header. The JSON is the truth; what the accessors return was derived from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    value: Value,
    view: View,
}

/// The sizes of new metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewConfig {
    /// Size of the JSON area: one of [`HEADER_SIZES`](super::HEADER_SIZES) less 4096.
    pub json_size: u64,
    /// Size of the keyslots area: a multiple of 4096 up to 128 MiB.
    pub keyslots_size: u64,
}

impl Metadata {
    /// Reads and validates a JSON area (text, a NUL, and NULs to its end) that lies at byte `area_offset` of the
    /// device, in a header of `hdr_size` bytes.
    ///
    /// # Errors
    /// [`FormatError`] names the first member that breaks a rule, and its byte on the device.
    pub fn parse(area: &[u8], area_offset: u64, hdr_size: u64) -> Result<Self, FormatError> {
        let (text, value) = text::parse(area, area_offset)?;
        let view = validated(&value, hdr_size).map_err(|mut refusal| {
            refusal.offset = area_offset.saturating_add(text::locate(text, &refusal.field));
            refusal
        })?;
        Ok(Self { value, view })
    }

    /// Metadata with every section empty. It becomes valid by its first [`edit`](Self::edit), which adds a segment
    /// and its digest at least.
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
        Self {
            value,
            view: View {
                keyslots: BTreeMap::new(),
                segments: BTreeMap::new(),
                digests: BTreeMap::new(),
                tokens: BTreeMap::new(),
                config,
            },
        }
    }

    /// Every rule of the format. Holds after a parse and after an edit; [`new`](Self::new) metadata is not valid yet.
    ///
    /// # Errors
    /// [`FormatError`] names the first rule that is broken.
    pub fn validate(&self) -> Result<(), FormatError> {
        validated(&self.value, self.hdr_size()).map(drop)
    }

    /// The JSON.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The JSON as it is stored: without spaces, in its own order.
    pub fn to_text(&self) -> String {
        self.value.to_string()
    }

    /// The JSON for people: indented.
    pub fn to_pretty_text(&self) -> String {
        format!("{:#}", self.value)
    }

    /// The size of the header that this metadata belongs to, in bytes: one copy of binary header and JSON.
    pub fn hdr_size(&self) -> u64 {
        self.view.config.json_size.saturating_add(ALIGNMENT)
    }

    /// The keyslots area in bytes.
    pub fn keyslots_area(&self) -> Range<u64> {
        self.view.config.keyslots_area()
    }

    /// The keyslots.
    pub fn keyslots(&self) -> &BTreeMap<u32, Keyslot> {
        &self.view.keyslots
    }

    /// The segments, backup ones included.
    pub fn segments(&self) -> &BTreeMap<u32, Segment> {
        &self.view.segments
    }

    /// The digests.
    pub fn digests(&self) -> &BTreeMap<u32, Digest> {
        &self.view.digests
    }

    /// The tokens.
    pub fn tokens(&self) -> &BTreeMap<u32, Token> {
        &self.view.tokens
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.view.config
    }

    /// The mandatory requirements, sorted out.
    pub fn requirements(&self) -> Requirements {
        self.view.config.requirements()
    }

    /// The digest that a keyslot belongs to.
    pub fn digest_of_keyslot(&self, keyslot: u32) -> Option<(u32, &Digest)> {
        self.view
            .digest(|digest| digest.keyslots.contains(&keyslot))
    }

    /// The digest that a segment belongs to.
    pub fn digest_of_segment(&self, segment: u32) -> Option<(u32, &Digest)> {
        self.view
            .digest(|digest| digest.segments.contains(&segment))
    }

    /// Where the data starts in bytes: the lowest segment that is not a backup. 0 with a detached header.
    pub fn data_offset(&self) -> u64 {
        self.view.data_offset()
    }

    /// The segments that map data now, lowest number first.
    pub fn data_segments(&self) -> impl Iterator<Item = (u32, &Segment)> {
        self.view.data_segments()
    }

    /// The one encrypted segment that a volume at rest has. Anything else is unsupported here: a reencryption
    /// under way, a segment that is not encrypted, or one that a drive encrypts.
    ///
    /// # Errors
    /// [`FormatError`] of the kind unsupported says which of these it is.
    pub fn data_segment(&self) -> Result<(u32, &CryptSegment), FormatError> {
        let mut segments = self.data_segments();
        match (segments.next(), segments.next()) {
            (Some((id, Segment::Crypt(segment))), None) => Ok((id, segment)),
            (Some((id, Segment::Linear(_))), None) => Err(FormatError::unsupported(
                format!("segments.{id}.type"),
                0,
                "the segment is not encrypted",
            )),
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

    /// The lowest offset in the keyslots area where `size` bytes are free, aligned to 4096 bytes, that also keeps
    /// off the ranges in `also_avoid`.
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

    /// Applies several changes as one: they are validated together, and when any of them or the whole is
    /// refused nothing changes.
    ///
    /// # Errors
    /// [`FormatError`] of the first change that was refused, or of the first rule that the whole would break.
    pub fn edit(
        &mut self,
        change: impl FnOnce(&mut Draft) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        let mut draft = Draft::new(self.value.clone());
        change(&mut draft)?;
        // Read back from its text, so that what is written is known to be readable.
        let text = text::fitting(&draft.finish(), self.view.config.json_size)?;
        let value = text::parse_text(text.as_bytes(), 0)?;
        let view = validated(&value, self.hdr_size())?;
        *self = Self { value, view };
        Ok(())
    }

    /// Adds or changes a keyslot that a digest already names; a new one comes with
    /// [`add_keyslot`](Self::add_keyslot).
    ///
    /// # Errors
    /// [`FormatError`] where the result would break a rule; nothing has changed then.
    pub fn set_keyslot(&mut self, id: u32, keyslot: &Keyslot) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_keyslot(id, keyslot))
    }

    /// Adds a keyslot that holds the key of `digest`.
    ///
    /// # Errors
    /// [`FormatError`] where the result would break a rule; nothing has changed then.
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
    /// [`FormatError`] where the result would break a rule; nothing has changed then.
    pub fn remove_keyslot(&mut self, id: u32) -> Result<(), FormatError> {
        self.edit(|draft| draft.remove_keyslot(id))
    }

    /// Adds or changes a segment.
    ///
    /// # Errors
    /// [`FormatError`] where the result would break a rule; nothing has changed then.
    pub fn set_segment(&mut self, id: u32, segment: &Segment) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_segment(id, segment))
    }

    /// Adds or changes a digest.
    ///
    /// # Errors
    /// [`FormatError`] where the result would break a rule; nothing has changed then.
    pub fn set_digest(&mut self, id: u32, digest: &Digest) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_digest(id, digest))
    }

    /// Moves a keyslot to a digest, or out of all.
    ///
    /// # Errors
    /// [`FormatError`] where the result would break a rule; nothing has changed then.
    pub fn assign_keyslot_to_digest(
        &mut self,
        keyslot: u32,
        digest: Option<u32>,
    ) -> Result<(), FormatError> {
        self.edit(|draft| draft.assign_keyslot_to_digest(keyslot, digest))
    }

    /// Adds or replaces a token as a whole.
    ///
    /// # Errors
    /// [`FormatError`] where the result would break a rule; nothing has changed then.
    pub fn set_token(&mut self, id: u32, token: Value) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_token(id, token))
    }

    /// Removes a token.
    ///
    /// # Errors
    /// [`FormatError`] where the result would break a rule; nothing has changed then.
    pub fn remove_token(&mut self, id: u32) -> Result<(), FormatError> {
        self.edit(|draft| draft.remove_token(id))
    }

    /// Says whether a token is for a keyslot.
    ///
    /// # Errors
    /// [`FormatError`] where the result would break a rule; nothing has changed then.
    pub fn assign_token(
        &mut self,
        id: u32,
        keyslot: u32,
        assigned: bool,
    ) -> Result<(), FormatError> {
        self.edit(|draft| draft.assign_token(id, keyslot, assigned))
    }

    /// Sets when a keyslot is tried.
    ///
    /// # Errors
    /// [`FormatError`] where the result would break a rule; nothing has changed then.
    pub fn set_priority(&mut self, keyslot: u32, priority: Priority) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_priority(keyslot, priority))
    }

    /// Sets the flags of the config.
    ///
    /// # Errors
    /// [`FormatError`] where the result would break a rule; nothing has changed then.
    pub fn set_flags(&mut self, flags: Vec<String>) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_flags(&flags))
    }

    /// Sets the mandatory requirements.
    ///
    /// # Errors
    /// [`FormatError`] where the result would break a rule; nothing has changed then.
    pub fn set_requirements(&mut self, requirements: Vec<String>) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_requirements(&requirements))
    }
}

/// The view of valid metadata.
fn validated(value: &Value, hdr_size: u64) -> Result<View, FormatError> {
    let view = View::derive(value, hdr_size)?;
    validate::all(&view)?;
    Ok(view)
}
