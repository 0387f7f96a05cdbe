//! A reencryption in progress: how far it is, the metadata of its steps, and the bytes that its
//! verification digest covers.
//!
//! This is what cryptsetup writes for a reencryption from one encrypted segment to another one,
//! from the start of the data to its end, without a move of the data. Two backup segments record
//! the state before and after it. The segments that map data are up to three: one that is
//! converted, one in reencryption (the hot zone), and one that is not converted. The verification
//! digest covers both keys, the keyslot of the reencryption and the backup segments, but not the
//! segments that map data. So those are compared with the backup segments here.

mod covered;
mod steps;

pub use steps::NewReencryption;

use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use super::keyslot::Keyslot;
use super::metadata::Metadata;
use super::reencrypt::{Direction, ReencryptKeyslot, ReencryptMode, Resilience};
use super::segment::{CryptSegment, HOT, Segment, SegmentSize};
use crate::error::FormatError;

/// The flag of the segment that records the state before a reencryption.
pub(super) const PREVIOUS: &str = "backup-previous";
/// The flag of the segment that records the state after a reencryption.
pub(super) const FINAL: &str = "backup-final";

/// The requirement that announces a reencryption with a verification digest.
pub const REENCRYPT_REQUIREMENT: &str = "online-reencrypt-v2";

/// The version of the verification digest that [`REENCRYPT_REQUIREMENT`] states.
pub const REENCRYPT_VERSION: u8 = 2;

/// A reencryption in progress, whose segments agree with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reencryption {
    /// The number of the keyslot that describes it.
    pub keyslot: u32,
    /// The keyslot.
    pub state: ReencryptKeyslot,
    /// The segment before it, without flags.
    pub previous: CryptSegment,
    /// The segment after it, without flags.
    pub following: CryptSegment,
    /// The digest of the key of `previous`.
    pub previous_digest: u32,
    /// The digest of the key of `following`. It is the same if only the cipher or the sector size
    /// changes.
    pub following_digest: u32,
    /// The salt of the verification digest: random bytes that only this reencryption has. Empty if
    /// there is no such digest.
    pub salt: Vec<u8>,
    /// How far it is.
    pub progress: Progress,
}

/// How far a reencryption is. Offsets count from the start of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Progress {
    /// Everything before this offset is converted, and nothing after it.
    Clean {
        /// The offset in bytes.
        converted: u64,
    },
    /// Everything before the hot zone is converted, and nothing after it. Of the zone itself any
    /// part may be.
    Hot {
        /// The start of the zone in bytes.
        start: u64,
        /// The length of the zone in bytes.
        length: u64,
    },
    /// Everything is converted. Only the metadata of the reencryption is left.
    Finished,
}
impl ReencryptKeyslot {
    /// A reencryption from the start of the data to its end.
    #[must_use]
    pub fn forward(area: core::ops::Range<u64>, resilience: Resilience) -> Self {
        Self {
            mode: ReencryptMode::Reencrypt,
            direction: Direction::Forward,
            area,
            resilience,
        }
    }
}

impl Reencryption {
    /// The length that the header states for the volume, in bytes. `None` means up to the end of
    /// the storage.
    #[must_use]
    pub fn fixed_size(&self) -> Option<u64> {
        match self.previous.size {
            SegmentSize::Fixed(size) => Some(size),
            SegmentSize::Dynamic => None,
        }
    }

    /// The sector size of both sides together: each piece of this size is whole sectors of both.
    #[must_use]
    pub fn sector_size(&self) -> u32 {
        self.previous.sector_size.max(self.following.sector_size)
    }

    /// The segments that map data at this progress, each with its digests.
    /// `size` is the size of the data in bytes.
    fn live(
        &self,
        progress: Progress,
        size: u64,
    ) -> Result<Vec<(CryptSegment, Vec<u32>)>, FormatError> {
        let part = |of: &CryptSegment, start: u64, size: SegmentSize| CryptSegment {
            offset: of.offset.saturating_add(start),
            size,
            iv_tweak: of.iv_tweak.wrapping_add(start / 512),
            flags: Vec::new(),
            ..of.clone()
        };
        let (hot_start, hot_length) = match progress {
            Progress::Clean { converted } => (converted, 0),
            Progress::Hot { start, length } => (start, length),
            Progress::Finished => {
                let whole = part(&self.following, 0, self.previous.size);
                return Ok(vec![(whole, vec![self.following_digest])]);
            }
        };
        let end = hot_start
            .checked_add(hot_length)
            .ok_or_else(|| FormatError::malformed("segments", 0, "the zone is over 64 bits"))?;
        let mut live = Vec::new();
        if hot_start > 0 {
            let segment = part(&self.following, 0, SegmentSize::Fixed(hot_start));
            live.push((segment, vec![self.following_digest]));
        }
        if hot_length > 0 {
            let size = SegmentSize::Fixed(hot_length);
            let mut segment = part(&self.following, hot_start, size);
            segment.flags.push(HOT.to_string());
            let mut digests = vec![self.previous_digest];
            if self.following_digest != self.previous_digest {
                digests.push(self.following_digest);
            }
            live.push((segment, digests));
        }
        if end < size {
            let rest = match self.previous.size {
                SegmentSize::Dynamic => SegmentSize::Dynamic,
                SegmentSize::Fixed(whole) => SegmentSize::Fixed(whole.saturating_sub(end)),
            };
            let segment = part(&self.previous, end, rest);
            live.push((segment, vec![self.previous_digest]));
        }
        Ok(live)
    }
}

impl Metadata {
    /// The reencryption in progress. `None` if no requirement announces one.
    ///
    /// # Errors
    /// Returns [`FormatError`] for a kind of reencryption that is not supported, and for segments
    /// that do not agree with each other.
    pub fn reencryption(&self) -> Result<Option<Reencryption>, FormatError> {
        let requirements = self.requirements();
        if !requirements.reencrypt {
            return Ok(None);
        }
        let unsupported =
            |field: &str, cause: &str| Err(FormatError::unsupported(field.to_string(), 0, cause));
        let field = "config.requirements.mandatory";
        if self.config().requirements.as_slice() != [REENCRYPT_REQUIREMENT] {
            return unsupported(field, "only online-reencrypt-v2 without another one is");
        }
        let mut keyslots = self.keyslots().iter();
        let found = keyslots.find_map(|(id, keyslot)| match keyslot {
            Keyslot::Reencrypt(state) => Some((*id, state.clone())),
            Keyslot::Luks2(_) | Keyslot::Other(_) => None,
        });
        let Some((keyslot, state)) = found else {
            return unsupported(
                "keyslots",
                "the keyslot of the reencryption is not understood",
            );
        };
        let path = format!("keyslots.{keyslot}");
        if state.mode != ReencryptMode::Reencrypt {
            return unsupported(
                &path,
                "encryption and decryption in place are not supported",
            );
        }
        if state.direction != Direction::Forward {
            return unsupported(&path, "a reencryption from the end is not supported");
        }
        match state.resilience {
            Resilience::None | Resilience::Journal | Resilience::Checksum { .. } => {}
            Resilience::Datashift { .. }
            | Resilience::DatashiftJournal { .. }
            | Resilience::DatashiftChecksum { .. } => {
                return unsupported(&path, "a reencryption that moves the data is not supported");
            }
        }
        let backups = self.segments().values().filter(|s| s.is_backup()).count();
        if backups != 2 {
            return unsupported("segments", "a reencryption here has two backup segments");
        }
        let (previous, previous_digest) = self.backup(PREVIOUS)?;
        let (following, following_digest) = self.backup(FINAL)?;
        if previous.offset != following.offset || previous.iv_tweak != following.iv_tweak {
            return unsupported(
                "segments",
                "a reencryption that moves the data is not supported",
            );
        }
        let mut found = Reencryption {
            keyslot,
            state,
            previous,
            following,
            previous_digest,
            following_digest,
            salt: self
                .digest_of_keyslot(keyslot)
                .map(|(_, digest)| digest.salt.clone())
                .unwrap_or_default(),
            progress: Progress::Finished,
        };
        found.progress = self.progress(&found)?;
        Ok(Some(found))
    }

    /// The segment with this flag, and its digest.
    fn backup(&self, flag: &str) -> Result<(CryptSegment, u32), FormatError> {
        let flagged = |segment: &Segment| segment.flags().iter().any(|name| name == flag);
        let mut found = self.segments().iter().filter(|(_, s)| flagged(s));
        let (Some((&id, segment)), None) = (found.next(), found.next()) else {
            let cause = format!("there is not exactly one with the flag {flag}");
            return Err(FormatError::malformed("segments", 0, cause));
        };
        let Segment::Crypt(segment) = segment else {
            return Err(segment.why().cloned().unwrap_or_else(|| {
                let cause = "a backup segment that is not encrypted is not supported";
                FormatError::unsupported(format!("segments.{id}.type"), 0, cause)
            }));
        };
        let mut segment = segment.clone();
        segment.flags.clear();
        match self.digests_of(id)[..] {
            [digest] => Ok((segment, digest)),
            _ => Err(FormatError::malformed(
                format!("segments.{id}"),
                0,
                "the backup segment does not belong to exactly one digest",
            )),
        }
    }

    /// The digests that name a segment.
    fn digests_of(&self, segment: u32) -> Vec<u32> {
        let digests = self.digests().iter();
        let known = digests.filter(|(_, digest)| digest.segments.contains(&segment));
        let mut all: Vec<u32> = known.map(|(id, _)| *id).collect();
        let other = self.other_digests().iter();
        let other = other.filter(|(_, digest)| digest.segments.contains(&segment));
        all.extend(other.map(|(id, _)| *id));
        all
    }

    /// How far the reencryption is: which of the possible layouts the segments that map data are.
    fn progress(&self, of: &Reencryption) -> Result<Progress, FormatError> {
        let disagree = |id: u32, cause: &str| {
            let cause = format!("does not agree with the backup segments: {cause}");
            Err(FormatError::malformed(format!("segments.{id}"), 0, cause))
        };
        let live: Vec<_> = self.data_segments().collect();
        let hot = live
            .iter()
            .position(|(_, segment)| segment.flags().iter().any(|flag| flag == HOT));
        let mut at = 0_u64;
        let mut hot_zone = None;
        let mut converted = 0;
        let mut finished = false;
        for (index, (id, segment)) in live.iter().enumerate() {
            let Segment::Crypt(segment) = segment else {
                return disagree(*id, "it is not encrypted, or not understood");
            };
            let digests = self.digests_of(*id);
            let last = live.len() == index.saturating_add(1);
            let like = |of: &CryptSegment| {
                segment.encryption == of.encryption
                    && segment.sector_size == of.sector_size
                    && segment.offset == of.offset.saturating_add(at)
                    && segment.iv_tweak == of.iv_tweak.wrapping_add(at / 512)
            };
            let is_following = like(&of.following) && digests == [of.following_digest];
            let is_previous = like(&of.previous) && digests == [of.previous_digest];
            let length = match segment.size {
                SegmentSize::Fixed(length) => Some(length),
                SegmentSize::Dynamic => None,
            };
            if Some(index) == hot {
                let mut both = vec![of.previous_digest, of.following_digest];
                both.sort_unstable();
                both.dedup();
                let Some(length) = length else {
                    return disagree(*id, "a zone in reencryption has no fixed size");
                };
                if segment.flags != [HOT] || !like(&of.following) || digests != both {
                    return disagree(*id, "the zone in reencryption");
                }
                hot_zone = Some((at, length));
            } else if !segment.flags.is_empty() {
                return disagree(*id, "it has unknown flags");
            } else if hot.is_none_or(|hot| index < hot) && index == 0 && is_following {
                // With one segment, this is the state after the last zone.
                finished = last;
                converted = length.unwrap_or(0);
                if last && length.is_some() && segment.size != of.previous.size {
                    return disagree(*id, "its size");
                }
            } else if last && is_previous && hot.is_none_or(|hot| index == hot.saturating_add(1)) {
                let whole = length.map(|length| SegmentSize::Fixed(at.saturating_add(length)));
                if whole.is_some_and(|whole| whole != of.previous.size) {
                    let cause = "only a part of the data is reencrypted, which is not supported";
                    return Err(FormatError::unsupported(
                        format!("segments.{id}.size"),
                        0,
                        cause,
                    ));
                }
            } else {
                return disagree(*id, "it is neither the state before nor that after");
            }
            match length {
                Some(length) => at = at.saturating_add(length),
                None if last => {}
                None => return disagree(*id, "it has no fixed size"),
            }
        }
        if hot.is_none() && live.len() > 2 {
            return disagree(2, "there are too many segments");
        }
        Ok(match hot_zone {
            Some((start, length)) => Progress::Hot { start, length },
            None if finished => Progress::Finished,
            None => Progress::Clean { converted },
        })
    }
}
