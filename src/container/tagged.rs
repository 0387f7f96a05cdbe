//! What the tags of a volume's ciphertext need of its header and its volume key.

use std::ops::Range;

use super::{Container, Unlocked, VolumeError};
use crate::backend::Backend;
use crate::crypt::{CryptError, SectorCrypt};
use crate::trust::tags::{Covered, TagKey};

impl Container {
    /// What the tags of this volume cover: where its data begins on its storage, and how it is
    /// encrypted.
    ///
    /// # Errors
    /// The same as for [`Container::volume`].
    pub fn covered(&self, data: &dyn Backend, unlocked: &Unlocked) -> Result<Covered, VolumeError> {
        if !self.is_own_volume_key(unlocked) {
            return Err(VolumeError::WrongKey);
        }
        let segment = self.data_segment_on(data)?;
        let crypt = SectorCrypt::new(segment.cipher, segment.sector_size, &unlocked.key)?;
        Ok(Covered::new(segment.offset, segment.first_iv, crypt))
    }

    /// The bytes of the storage that have tags: the data, to the end of the storage's last block of
    /// it.
    ///
    /// # Errors
    /// The same as for [`Container::volume`].
    pub fn covered_bytes(&self, data: &dyn Backend) -> Result<Range<u64>, VolumeError> {
        let geometry = data.geometry();
        let segment = self.data_segment_on(data)?;
        let size = segment.size_on(geometry.size)?;
        let whole = size.checked_next_multiple_of(geometry.block_size.max(1).into());
        let end = segment.offset.saturating_add(whole.unwrap_or(u64::MAX));
        Ok(segment.offset..end.min(geometry.size))
    }

    /// The key of the tags of this volume. `uuid` is its UUID in the usual form.
    ///
    /// # Errors
    /// [`VolumeError::WrongKey`], and locked memory that is short.
    pub fn tag_key(&self, uuid: &str, unlocked: &Unlocked) -> Result<TagKey, VolumeError> {
        match self.is_own_volume_key(unlocked) {
            true => Ok(TagKey::new(&unlocked.key, uuid).map_err(CryptError::from)?),
            false => Err(VolumeError::WrongKey),
        }
    }
}
