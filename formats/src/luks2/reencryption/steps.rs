//! The metadata of the steps of a reencryption: its begin, each zone, and its end.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::{FINAL, ONLINE, PREVIOUS, Progress, REENCRYPT_REQUIREMENT};
use crate::error::FormatError;
use crate::json::{Value, json};
use crate::luks2::digest::Digest;
use crate::luks2::edit::{Draft, refer};
use crate::luks2::keyslot::Keyslot;
use crate::luks2::metadata::Metadata;
use crate::luks2::reencrypt::ReencryptKeyslot;
use crate::luks2::segment::{CryptSegment, LinearSegment, Segment};

/// What [`Metadata::begin_reencryption`] adds.
#[derive(Clone, Debug)]
pub struct NewReencryption {
    /// The new keyslots, and the keyslot that each replaces: it gets the tokens of that one.
    pub keyslots: Vec<(u32, Keyslot, u32)>,
    /// The number and the digest of the new key, without its segments. `None` if the key stays the
    /// same.
    pub digest: Option<(u32, Digest)>,
    /// The number of the keyslot that describes the reencryption.
    pub keyslot: u32,
    /// The area of that keyslot, and how a zone survives an interruption.
    pub state: ReencryptKeyslot,
    /// The segment after the reencryption.
    pub following: CryptSegment,
}

impl Metadata {
    /// Adds everything that describes a reencryption but its verification digest: keyslots, the
    /// digest of the new key, the backup segments and the requirement.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule, or does not fit the area of the
    /// metadata, also in a later state of the reencryption. Nothing has changed then.
    pub fn begin_reencryption(&mut self, new: NewReencryption) -> Result<(), FormatError> {
        let (id, present) = self.data_segment()?;
        let present = present.clone();
        let [previous_digest] = self.digests_of(id)[..] else {
            let path = format!("segments.{id}");
            return Err(FormatError::malformed(
                path,
                0,
                "belongs to several digests",
            ));
        };
        let following_digest = new.digest.as_ref().map_or(previous_digest, |(id, _)| *id);
        let tokens: Vec<(u32, Vec<u32>)> = self
            .tokens()
            .iter()
            .map(|(id, token)| (*id, token.keyslots.clone()))
            .collect();
        self.edit(|draft| {
            if let Some((id, digest)) = &new.digest {
                draft.set_digest(*id, digest)?;
            }
            for (slot, keyslot, replaced) in &new.keyslots {
                draft.set_keyslot(*slot, keyslot)?;
                draft.assign_keyslot_to_digest(*slot, Some(following_digest))?;
                for (token, _) in tokens.iter().filter(|(_, slots)| slots.contains(replaced)) {
                    draft.assign_token(*token, *slot, true)?;
                }
            }
            draft.set_keyslot(new.keyslot, &Keyslot::Reencrypt(new.state.clone()))?;
            let with_flag = |segment: &CryptSegment, flag: &str| CryptSegment {
                flags: vec![flag.to_string()],
                ..segment.clone()
            };
            let previous = with_flag(&present, PREVIOUS);
            let following = with_flag(&new.following, FINAL);
            draft.set_segment(1, &Segment::Crypt(previous))?;
            draft.refer_segment(1, &[previous_digest])?;
            draft.set_segment(2, &Segment::Crypt(following))?;
            draft.refer_segment(2, &[following_digest])?;
            draft.set_requirements(&[REENCRYPT_REQUIREMENT.to_string()])
        })
    }

    /// Turns the metadata of a new volume, whose data is still plaintext, into that of an
    /// encryption in place: everything but its verification digest. `keyslot` is the number of the
    /// keyslot that describes it.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule, or does not fit the area of the
    /// metadata. Nothing has changed then.
    pub fn begin_encryption(
        &mut self,
        keyslot: u32,
        state: &ReencryptKeyslot,
    ) -> Result<(), FormatError> {
        let (id, following) = self.data_segment()?;
        let mut following = following.clone();
        let digests = self.digests_of(id);
        let mut plain = LinearSegment {
            offset: following.offset,
            size: following.size,
            flags: Vec::new(),
        };
        following.flags = vec![FINAL.to_string()];
        self.edit(|draft| {
            draft.set_keyslot(keyslot, &Keyslot::Reencrypt(state.clone()))?;
            draft.remove_segment(id)?;
            draft.set_segment(0, &Segment::Linear(plain.clone()))?;
            plain.flags = vec![PREVIOUS.to_string()];
            draft.set_segment(1, &Segment::Linear(plain))?;
            draft.set_segment(2, &Segment::Crypt(following))?;
            draft.refer_segment(2, &digests)?;
            draft.set_requirements(&[REENCRYPT_REQUIREMENT.to_string()])
        })
    }

    /// Adds the verification digest of the reencryption.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn set_verification_digest(&mut self, id: u32, digest: &Digest) -> Result<(), FormatError> {
        self.edit(|draft| draft.set_digest(id, digest))
    }

    /// Records whether clients may write to the volume while it is reencrypted: a block of a hot
    /// zone may have neither the old nor the converted content then.
    ///
    /// # Errors
    /// Returns [`FormatError`] if there is no reencryption, or if the result does not fit the area
    /// of the metadata. Nothing has changed then.
    pub fn set_online(&mut self, online: bool) -> Result<(), FormatError> {
        let found = self.reencryption()?;
        let found =
            found.ok_or_else(|| FormatError::malformed("segments", 0, "no reencryption"))?;
        let name = found.keyslot.to_string();
        self.edit(|draft| {
            let keyslot = draft.section("keyslots")?.get_mut(&name);
            let keyslot = keyslot.and_then(Value::as_object_mut);
            let missing = || FormatError::malformed("keyslots", 0, "is missing");
            let keyslot = keyslot.ok_or_else(missing)?;
            match online {
                true => keyslot.insert(ONLINE, true),
                false => drop(keyslot.remove(ONLINE)),
            }
            Ok(())
        })
    }

    /// Changes how far the reencryption is, of data of `size` bytes. [`Progress::Finished`] only
    /// says that every zone is converted; [`finish_reencryption`](Self::finish_reencryption) ends
    /// it.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn set_progress(&mut self, progress: Progress, size: u64) -> Result<(), FormatError> {
        let found = self.reencryption()?;
        let found =
            found.ok_or_else(|| FormatError::malformed("segments", 0, "no reencryption"))?;
        let live = found.live(progress, size)?;
        self.edit(|draft| draft.set_live_segments(&live))
    }

    /// Removes everything that describes the reencryption, and the keyslots and the digest of the
    /// old key. The numbers of the removed keyslots are returned with their areas.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the result breaks a rule. Nothing has changed then.
    pub fn finish_reencryption(&mut self) -> Result<Vec<Range<u64>>, FormatError> {
        let found = self.reencryption()?;
        let found =
            found.ok_or_else(|| FormatError::malformed("segments", 0, "no reencryption"))?;
        let live = found.live(Progress::Finished, 0)?;
        let old = found
            .previous
            .digest()
            .filter(|old| *old != found.following_digest);
        let mut gone = vec![found.keyslot];
        if let Some(old) = old
            && let Some(digest) = self.digests().get(&old)
        {
            gone.extend(digest.keyslots.iter().copied());
        }
        let verification: Vec<u32> = self
            .digests()
            .iter()
            .filter(|(_, digest)| digest.keyslots.contains(&found.keyslot))
            .map(|(id, _)| *id)
            .collect();
        let areas = gone
            .iter()
            .filter_map(|id| self.keyslots().get(id).map(Keyslot::area))
            .collect();
        self.edit(|draft| {
            gone.iter().try_for_each(|id| draft.remove_keyslot(*id))?;
            draft.set_live_segments(&live)?;
            draft.remove_segment(1)?;
            draft.remove_segment(2)?;
            verification
                .iter()
                .try_for_each(|id| draft.remove_digest(*id))?;
            if let Some(old) = old {
                draft.remove_digest(old)?;
            }
            draft.set_requirements(&[])
        })?;
        Ok(areas)
    }
}

impl Draft {
    /// Sets the digests that name a segment.
    fn refer_segment(&mut self, segment: u32, wanted: &[u32]) -> Result<(), FormatError> {
        let name = segment.to_string();
        for (id, digest) in self.section("digests")?.iter_mut() {
            let wanted = wanted.iter().any(|wanted| wanted.to_string() == id);
            if let Some(digest) = digest.as_object_mut() {
                refer(digest, "segments", &name, wanted);
            }
        }
        Ok(())
    }

    /// Replaces the segments that map data. Backup segments keep all of their members, and follow
    /// with new numbers.
    fn set_live_segments(&mut self, live: &[(Segment, Vec<u32>)]) -> Result<(), FormatError> {
        let mut backups = Vec::new();
        let mut digests = Vec::new();
        for (name, digest) in self.section("digests")?.iter_mut() {
            let Some(list) = digest.get_mut("segments").and_then(Value::as_array_mut) else {
                continue;
            };
            digests.push((name.to_string(), core::mem::take(list)));
        }
        let segments = self.section("segments")?;
        let names: Vec<String> = segments.iter().map(|(name, _)| name.to_string()).collect();
        let mut ordered: Vec<(u32, String)> = names
            .into_iter()
            .filter_map(|name| Some((name.parse().ok()?, name)))
            .collect();
        ordered.sort_unstable();
        for (_, name) in ordered {
            let Some(segment) = segments.remove(&name) else {
                continue;
            };
            let flags = segment.get("flags").and_then(Value::as_array);
            let is_backup = flags.is_some_and(|flags| {
                let mut names = flags.iter().filter_map(Value::as_str);
                names.any(|flag| flag.starts_with("backup-"))
            });
            if is_backup {
                let by = |(_, list): &&(String, Vec<Value>)| {
                    list.iter().any(|value| value.as_str() == Some(&name))
                };
                let owners = digests.iter().filter(by).map(|(digest, _)| digest.clone());
                backups.push((segment, owners.collect::<Vec<String>>()));
            }
        }
        let mut number = 0_u32;
        for (segment, owners) in live {
            self.set_segment(number, segment)?;
            self.refer_segment(number, owners)?;
            number = number.saturating_add(1);
        }
        for (segment, owners) in backups {
            let name = number.to_string();
            self.section("segments")?.insert(&name, segment);
            for (digest, object) in self.section("digests")?.iter_mut() {
                if owners.iter().any(|owner| owner == digest)
                    && let Some(list) = object.get_mut("segments").and_then(Value::as_array_mut)
                {
                    list.push(json!(name));
                }
            }
            number = number.saturating_add(1);
        }
        Ok(())
    }
}
