//! The header of a volume whose key or cipher is changed in place, or whose data is encrypted in
//! place. [`crate::reencrypt`] converts
//! the data.
//!
//! The metadata is that of cryptsetup, so that each program goes on where the other one stopped.
//! No step overwrites what is in use: new key material is written to free space and is durable
//! before a header names it, and the two copies of the header change one after the other. So no
//! step needs an undo record. While there is an undo record of another change, the container only
//! opens for repair, so a reencryption neither begins nor goes on before that change is settled.

mod begin;
mod encrypt;
mod error;
mod keys;
mod noise;

use std::ops::Range;
use std::sync::Arc;

use luksmith_formats::luks2::{self, Kdf, Keyslot, Position, Progress, Reencryption};
use luksmith_formats::{FormatError, Hash};

pub use begin::{BeginReencryption, PreparedReencryption};
pub use encrypt::BeginEncryption;
pub use error::ReencryptionError;
pub use keys::{MatchedKeyslots, ReencryptionKeys};

use super::plan::WritePlan;
use super::{CommitError, Container, Header, Health, open};
use crate::backend::Backend;

/// The key after a reencryption, as far as the header tells.
#[derive(Debug, Default)]
pub(crate) struct FollowingKey {
    /// Its size in bytes.
    pub(crate) size: Option<usize>,
    /// The hash of its digest.
    pub(crate) hash: Option<Hash>,
    /// Those of its keyslots.
    pub(crate) kdfs: Vec<Kdf>,
}

impl Container {
    /// The reencryption in progress, if there is one.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the header has one that is not supported, or whose segments do
    /// not agree with each other.
    pub fn reencryption(&self) -> Result<Option<Reencryption>, FormatError> {
        match &self.header {
            Header::Luks1(_) => Ok(None),
            Header::Luks2(header) => header.metadata.reencryption(),
        }
    }

    /// The key after the reencryption that `found` describes, as far as the header tells.
    pub(crate) fn following_key(&self, found: &Reencryption) -> FollowingKey {
        let mut key = FollowingKey::default();
        let Header::Luks2(header) = &self.header else {
            return key;
        };
        let metadata = &header.metadata;
        let digest = metadata.digests().get(&found.following_digest);
        key.hash = digest.map(|digest| digest.hash);
        for slot in self.keyslots_of_digest(found.following_digest) {
            let keyslot = metadata.keyslots().get(&slot);
            if let Some(keyslot) = keyslot.and_then(Keyslot::as_luks2) {
                key.size = usize::try_from(keyslot.key_size).ok();
                key.kdfs.push(keyslot.kdf.clone());
            }
        }
        key
    }

    /// The storage of the header.
    pub(crate) fn header_storage(&self) -> &Arc<dyn Backend> {
        &self.storage
    }

    /// Makes both copies of the header equal and durable, if they are not.
    pub(crate) fn mend_copies(&mut self) -> Result<(), CommitError> {
        let Header::Luks2(header) = &self.header else {
            return Ok(());
        };
        if matches!(self.health, Health::Good) {
            return Ok(());
        }
        let mut next = header.clone();
        let mut plan = WritePlan::default();
        self.write_luks2(&mut plan, &mut next)?;
        self.commit(&plan, Header::Luks2(next))
    }

    /// Changes how far the reencryption of `size` bytes is, durably and in both copies.
    pub(crate) fn commit_progress(
        &mut self,
        progress: Progress,
        size: u64,
    ) -> Result<(), ReencryptionError> {
        let mut next = self.with_progress(progress, size)?;
        let mut plan = WritePlan::default();
        self.write_luks2(&mut plan, &mut next)?;
        Ok(self.commit(&plan, Header::Luks2(next))?)
    }

    /// Changes how far the reencryption of `size` bytes is, durably, in the primary copy only. The
    /// secondary copy stays as it is until [`write_second_copy`](Self::write_second_copy).
    pub(crate) fn commit_first_copy(
        &mut self,
        progress: Progress,
        size: u64,
    ) -> Result<(), ReencryptionError> {
        if !matches!(self.health, Health::Good) {
            return Err(CommitError::Changed.into());
        }
        self.check_unchanged()?;
        let mut next = self.with_progress(progress, size)?;
        next.seqid = next.seqid.checked_add(1).ok_or(CommitError::Sequence)?;
        let mut plan = WritePlan::default();
        plan.write(0, copy(&next, Position::Primary)?);
        plan.flush();
        let next = Header::Luks2(next);
        let changing = self
            .begin_pin(&plan, &next, &[])
            .map_err(CommitError::from)?;
        plan.execute(&*self.storage, None)?;
        self.end_pin(changing);
        self.fingerprint =
            open::current_fingerprint(&*self.storage, &self.header).map_err(CommitError::from)?;
        self.header = next;
        self.health = Health::SecondaryStale;
        Ok(())
    }

    /// Writes the secondary copy after [`commit_first_copy`](Self::commit_first_copy). It is
    /// durable after the next flush of the storage.
    pub(crate) fn write_second_copy(&mut self) -> Result<(), ReencryptionError> {
        self.check_unchanged()?;
        let Header::Luks2(header) = &self.header else {
            return Err(ReencryptionError::NotPending);
        };
        let mut plan = WritePlan::default();
        plan.write(header.hdr_size, copy(header, Position::Secondary)?);
        plan.execute(&*self.storage, None)?;
        self.fingerprint =
            open::current_fingerprint(&*self.storage, &self.header).map_err(CommitError::from)?;
        self.health = Health::Good;
        Ok(())
    }

    /// Records in both copies, durably, whether clients may write to the volume while it is
    /// reencrypted.
    pub(crate) fn commit_online(&mut self, online: bool) -> Result<(), ReencryptionError> {
        let Header::Luks2(header) = &self.header else {
            return Err(ReencryptionError::NotPending);
        };
        let mut next = header.clone();
        next.metadata.set_online(online)?;
        let mut plan = WritePlan::default();
        self.write_luks2(&mut plan, &mut next)?;
        Ok(self.commit(&plan, Header::Luks2(next))?)
    }

    /// Ends the reencryption: removes its metadata and the keyslots of the old key in one commit,
    /// and returns their areas. All data has to be converted and durable.
    pub(crate) fn end_reencryption(&mut self) -> Result<Vec<Range<u64>>, ReencryptionError> {
        let Header::Luks2(header) = &self.header else {
            return Err(ReencryptionError::NotPending);
        };
        let mut next = header.clone();
        let areas = next.metadata.finish_reencryption()?;
        let mut plan = WritePlan::default();
        self.write_luks2(&mut plan, &mut next)?;
        self.commit(&plan, Header::Luks2(next))?;
        Ok(areas)
    }

    /// Overwrites the areas that the end of a reencryption has left with noise, durably.
    pub(crate) fn wipe_areas(&mut self, areas: Vec<Range<u64>>) -> Result<(), ReencryptionError> {
        self.check_unchanged()?;
        noise::write(&*self.storage, &areas)?;
        Ok(())
    }

    fn with_progress(
        &self,
        progress: Progress,
        size: u64,
    ) -> Result<luks2::Header, ReencryptionError> {
        let Header::Luks2(header) = &self.header else {
            return Err(ReencryptionError::NotPending);
        };
        let mut next = header.clone();
        next.metadata.set_progress(progress, size)?;
        Ok(next)
    }

    /// The numbers of the keyslots of a digest that may be tried, in the order in which they are.
    pub(crate) fn keyslots_of_digest(&self, digest: u32) -> Vec<u32> {
        let Header::Luks2(header) = &self.header else {
            return Vec::new();
        };
        let metadata = &header.metadata;
        let Some(digest) = metadata.digests().get(&digest) else {
            return Vec::new();
        };
        let mut slots: Vec<_> = digest
            .keyslots
            .iter()
            .filter_map(|slot| Some((*slot, metadata.keyslots().get(slot)?)))
            .filter(|(_, keyslot)| keyslot.kind() == Keyslot::LUKS2)
            .map(|(slot, keyslot)| (prefers(keyslot), slot))
            .collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, slot)| slot).collect()
    }
}

/// The place of a keyslot in the order of trying: preferred ones are first.
fn prefers(keyslot: &Keyslot) -> u8 {
    let preferred = |keyslot: &luks2::Luks2Keyslot| keyslot.priority == luks2::Priority::Prefer;
    u8::from(!keyslot.as_luks2().is_some_and(preferred))
}

/// The bytes of a copy of the header, with a random salt.
fn copy(header: &luks2::Header, position: Position) -> Result<Vec<u8>, CommitError> {
    let mut salt = [0; 64];
    crate::secret::random(&mut salt)?;
    Ok(header.to_bytes(position, &salt)?)
}
