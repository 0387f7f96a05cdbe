//! A reencryption in progress: how far it is, the metadata of its steps, and the bytes that its
//! verification digest covers.
//!
//! This is what cryptsetup writes for a reencryption from one encrypted segment to another one, or
//! for the encryption of plaintext in place, from the start of the data to its end, without a move
//! of the data. Two backup segments record the state before and after it. The segments that map
//! data are up to three: one that is converted, one in reencryption (the hot zone), and one that is
//! not converted. The verification digest covers both keys, the keyslot of the reencryption and the
//! backup segments, but not the segments that map data. So those are compared with the backup
//! segments here.

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
use super::segment::{CryptSegment, HOT, LinearSegment, Segment, SegmentSize};
use crate::error::FormatError;

/// The flag of the segment that records the state before a reencryption.
pub(super) const PREVIOUS: &str = "backup-previous";
/// The flag of the segment that records the state after a reencryption.
pub(super) const FINAL: &str = "backup-final";

/// The member of the keyslot of a reencryption which says that clients may have written to the
/// volume meanwhile. It is luksmith's own, and goes with the keyslot.
const ONLINE: &str = "luksmith-online";

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
    /// The data before it.
    pub previous: Previous,
    /// The segment after it, without flags.
    pub following: CryptSegment,
    /// The digest of the key of `following`. It is that of the old key too if only the cipher or
    /// the sector size changes.
    pub following_digest: u32,
    /// The salt of the verification digest: random bytes that only this reencryption has. Empty if
    /// there is no such digest.
    pub salt: Vec<u8>,
    /// How far it is.
    pub progress: Progress,
    /// Whether clients may have written to the hot zone, with the new key.
    pub online: bool,
}

/// The data before a reencryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Previous {
    /// It is encrypted.
    Crypt {
        /// The segment, without flags.
        segment: CryptSegment,
        /// The digest of its key.
        digest: u32,
    },
    /// It is plaintext, which is encrypted in place. The segment is without flags.
    Plain(LinearSegment),
}

impl Previous {
    /// The start of the data in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match self {
            Self::Crypt { segment, .. } => segment.offset,
            Self::Plain(segment) => segment.offset,
        }
    }

    /// The length of the data.
    #[must_use]
    pub fn size(&self) -> SegmentSize {
        match self {
            Self::Crypt { segment, .. } => segment.size,
            Self::Plain(segment) => segment.size,
        }
    }

    /// The size of a sector in bytes. Plaintext has the smallest one.
    #[must_use]
    pub fn sector_size(&self) -> u32 {
        match self {
            Self::Crypt { segment, .. } => segment.sector_size,
            Self::Plain(_) => 512,
        }
    }

    /// The digest of the old key. Plaintext has none.
    #[must_use]
    pub fn digest(&self) -> Option<u32> {
        match self {
            Self::Crypt { digest, .. } => Some(*digest),
            Self::Plain(_) => None,
        }
    }

    /// The segment, if the data is encrypted.
    #[must_use]
    pub fn as_crypt(&self) -> Option<&CryptSegment> {
        match self {
            Self::Crypt { segment, .. } => Some(segment),
            Self::Plain(_) => None,
        }
    }

    fn has_digests(&self, digests: &[u32]) -> bool {
        self.digest().as_slice() == digests
    }

    /// A part of the data. Offsets count from its start.
    fn part(&self, start: u64, size: SegmentSize) -> Segment {
        match self {
            Self::Crypt { segment, .. } => Segment::Crypt(part(segment, start, size)),
            Self::Plain(segment) => Segment::Linear(LinearSegment {
                offset: segment.offset.saturating_add(start),
                size,
                flags: Vec::new(),
            }),
        }
    }
}

/// A part of an encrypted segment, without flags. Offsets count from its start.
fn part(of: &CryptSegment, start: u64, size: SegmentSize) -> CryptSegment {
    CryptSegment {
        offset: of.offset.saturating_add(start),
        size,
        iv_tweak: of.iv_tweak.wrapping_add(start / 512),
        flags: Vec::new(),
        ..of.clone()
    }
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
    pub fn forward(
        mode: ReencryptMode,
        area: core::ops::Range<u64>,
        resilience: Resilience,
    ) -> Self {
        Self {
            mode,
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
        match self.previous.size() {
            SegmentSize::Fixed(size) => Some(size),
            SegmentSize::Dynamic => None,
        }
    }

    /// The sector size of both sides together: each piece of this size is whole sectors of both.
    #[must_use]
    pub fn sector_size(&self) -> u32 {
        self.previous.sector_size().max(self.following.sector_size)
    }

    /// Whether the data was plaintext.
    #[must_use]
    pub fn is_encryption(&self) -> bool {
        matches!(self.previous, Previous::Plain(_))
    }

    /// The digests of a hot zone: those of both keys.
    fn hot_digests(&self) -> Vec<u32> {
        let previous = self.previous.digest();
        let mut digests: Vec<u32> = previous.into_iter().collect();
        if previous != Some(self.following_digest) {
            digests.push(self.following_digest);
        }
        digests
    }

    /// The segments that map data at this progress, each with its digests.
    /// `size` is the size of the data in bytes.
    fn live(&self, progress: Progress, size: u64) -> Result<Vec<(Segment, Vec<u32>)>, FormatError> {
        let following = |start: u64, size: SegmentSize| part(&self.following, start, size);
        let (hot_start, hot_length) = match progress {
            Progress::Clean { converted } => (converted, 0),
            Progress::Hot { start, length } => (start, length),
            Progress::Finished => {
                let whole = Segment::Crypt(following(0, self.previous.size()));
                return Ok(vec![(whole, vec![self.following_digest])]);
            }
        };
        let end = hot_start
            .checked_add(hot_length)
            .ok_or_else(|| FormatError::malformed("segments", 0, "the zone is over 64 bits"))?;
        let mut live = Vec::new();
        if hot_start > 0 {
            let segment = following(0, SegmentSize::Fixed(hot_start));
            live.push((Segment::Crypt(segment), vec![self.following_digest]));
        }
        if hot_length > 0 {
            let mut segment = following(hot_start, SegmentSize::Fixed(hot_length));
            segment.flags.push(HOT.to_string());
            live.push((Segment::Crypt(segment), self.hot_digests()));
        }
        if end < size {
            let rest = match self.previous.size() {
                SegmentSize::Dynamic => SegmentSize::Dynamic,
                SegmentSize::Fixed(whole) => SegmentSize::Fixed(whole.saturating_sub(end)),
            };
            let digests = self.previous.digest().into_iter().collect();
            live.push((self.previous.part(end, rest), digests));
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
        if state.mode == ReencryptMode::Decrypt {
            return unsupported(&path, "decryption in place is not supported");
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
        let previous = self.previous(state.mode)?;
        let (id, following) = self.backup(FINAL)?;
        let (following, following_digest) = self.backup_crypt(id, following)?;
        let same_iv = previous
            .as_crypt()
            .is_none_or(|previous| previous.iv_tweak == following.iv_tweak);
        if previous.offset() != following.offset || !same_iv {
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
            following_digest,
            salt: self
                .digest_of_keyslot(keyslot)
                .map(|(_, digest)| digest.salt.clone())
                .unwrap_or_default(),
            progress: Progress::Finished,
            online: self.is_online(keyslot),
        };
        found.progress = self.progress(&found)?;
        Ok(Some(found))
    }

    /// The segment of the volume key: the first one that maps data. Where that is plaintext, which
    /// is encrypted in place, it is the segment of the encryption after that.
    #[must_use]
    pub fn key_segment(&self) -> Option<u32> {
        let (id, segment) = self.data_segments().next()?;
        match segment {
            Segment::Linear(_) => Some(self.backup(FINAL).map_or(id, |(id, _)| id)),
            Segment::Crypt(_) | Segment::Authenticated(_) | Segment::Other(_) => Some(id),
        }
    }

    /// Whether the keyslot of the reencryption says that the volume was in use meanwhile.
    fn is_online(&self, keyslot: u32) -> bool {
        let keyslots = self.value().get("keyslots");
        let keyslot = keyslots.and_then(|keyslots| keyslots.get(&keyslot.to_string()));
        keyslot.and_then(|keyslot| keyslot.get(ONLINE)).is_some()
    }

    /// The data before the reencryption, which is plaintext if and only if it is encrypted in
    /// place.
    fn previous(&self, mode: ReencryptMode) -> Result<Previous, FormatError> {
        let (id, segment) = self.backup(PREVIOUS)?;
        let mut segment = match (segment, mode) {
            (Segment::Linear(segment), ReencryptMode::Encrypt) => segment.clone(),
            (_, ReencryptMode::Encrypt) => {
                let cause = "plaintext is encrypted in place, but this is not its segment";
                return Err(FormatError::malformed(
                    format!("segments.{id}.type"),
                    0,
                    cause,
                ));
            }
            _ => {
                let (segment, digest) = self.backup_crypt(id, segment)?;
                return Ok(Previous::Crypt { segment, digest });
            }
        };
        segment.flags.clear();
        match self.digests_of(id)[..] {
            [] => Ok(Previous::Plain(segment)),
            _ => Err(FormatError::malformed(
                format!("segments.{id}"),
                0,
                "the segment is not encrypted, but belongs to a digest",
            )),
        }
    }

    /// The segment with this flag.
    fn backup(&self, flag: &str) -> Result<(u32, &Segment), FormatError> {
        let flagged = |segment: &Segment| segment.flags().iter().any(|name| name == flag);
        let mut found = self.segments().iter().filter(|(_, s)| flagged(s));
        match (found.next(), found.next()) {
            (Some((&id, segment)), None) => Ok((id, segment)),
            _ => {
                let cause = format!("there is not exactly one with the flag {flag}");
                Err(FormatError::malformed("segments", 0, cause))
            }
        }
    }

    /// A backup segment that is encrypted, without flags, and its digest.
    fn backup_crypt(&self, id: u32, segment: &Segment) -> Result<(CryptSegment, u32), FormatError> {
        let Segment::Crypt(segment) = segment else {
            return Err(segment.why().cloned().unwrap_or_else(|| {
                let cause = "a backup segment that is not encrypted, or has tags, is not supported";
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
            let digests = self.digests_of(*id);
            let last = live.len() == index.saturating_add(1);
            let encrypted = |of: &CryptSegment| {
                segment.as_crypt().is_some_and(|segment| {
                    segment.encryption == of.encryption
                        && segment.sector_size == of.sector_size
                        && segment.offset == of.offset.saturating_add(at)
                        && segment.iv_tweak == of.iv_tweak.wrapping_add(at / 512)
                })
            };
            let is_following = encrypted(&of.following) && digests == [of.following_digest];
            let is_previous = of.previous.has_digests(&digests)
                && match (&of.previous, segment) {
                    (Previous::Crypt { segment, .. }, _) => encrypted(segment),
                    (Previous::Plain(whole), Segment::Linear(segment)) => {
                        segment.offset == whole.offset.saturating_add(at)
                    }
                    (
                        Previous::Plain(_),
                        Segment::Crypt(_) | Segment::Authenticated(_) | Segment::Other(_),
                    ) => false,
                };
            if matches!(segment, Segment::Authenticated(_) | Segment::Other(_)) {
                return disagree(*id, "it is not understood, or has tags");
            }
            let length = match segment.size() {
                SegmentSize::Fixed(length) => Some(length),
                SegmentSize::Dynamic => None,
            };
            if Some(index) == hot {
                let mut both = of.hot_digests();
                both.sort_unstable();
                let Some(length) = length else {
                    return disagree(*id, "a zone in reencryption has no fixed size");
                };
                if segment.flags() != [HOT] || !encrypted(&of.following) || digests != both {
                    return disagree(*id, "the zone in reencryption");
                }
                hot_zone = Some((at, length));
            } else if !segment.flags().is_empty() {
                return disagree(*id, "it has unknown flags");
            } else if hot.is_none_or(|hot| index < hot) && index == 0 && is_following {
                // With one segment, this is the state after the last zone.
                finished = last;
                converted = length.unwrap_or(0);
                if last && length.is_some() && segment.size() != of.previous.size() {
                    return disagree(*id, "its size");
                }
            } else if last && is_previous && hot.is_none_or(|hot| index == hot.saturating_add(1)) {
                let whole = length.map(|length| SegmentSize::Fixed(at.saturating_add(length)));
                if whole.is_some_and(|whole| whole != of.previous.size()) {
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
