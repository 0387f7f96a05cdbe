//! Volumes with authenticated encryption, whose sectors have tags that dm-integrity keeps. They are
//! only read.

use std::sync::Arc;

use luksmith_formats::dm_integrity::Places;
use luksmith_formats::luks2::AuthenticatedSegment;

use super::{Container, Header, Unlocked, VolumeError};
use crate::backend::Backend;
use crate::crypt::AuthenticatedCrypt;
use crate::layout::integrity::{Tagged, check_journal, places};
use crate::volume::Volume;

impl Container {
    /// The segment of a volume with authenticated encryption, which is only read. Nothing for other
    /// volumes, and for a cipher that is not supported.
    #[must_use]
    pub fn authenticated_segment(&self) -> Option<&AuthenticatedSegment> {
        match &self.header {
            Header::Luks1(_) => None,
            Header::Luks2(header) => header.metadata.authenticated_segment().ok().flatten(),
        }
    }

    /// Checks that the data of a volume with authenticated encryption can be read: `data` has the
    /// superblock of dm-integrity, and no write is in its journal only. Nothing is checked for
    /// other volumes.
    ///
    /// # Errors
    /// Returns [`VolumeError::Integrity`], [`VolumeError::Unsupported`] for requirements, and
    /// [`VolumeError::Detached`].
    pub fn check_integrity(&self, data: &dyn Backend) -> Result<(), VolumeError> {
        self.places_on(data).map(drop)
    }

    /// The size of the volume in bytes, on the storage of its data.
    ///
    /// # Errors
    /// The same as for [`Container::volume`].
    pub fn data_size_on(&self, data: &dyn Backend) -> Result<u64, VolumeError> {
        match self.tagged_segment_on(data)? {
            Some(segment) => Ok(places(data, segment)?.size()),
            None => self.data_size(data.geometry().size),
        }
    }

    /// The volume, if it has authenticated encryption. The caller has checked the key.
    pub(super) fn tagged_volume(
        &self,
        data: &Arc<dyn Backend>,
        unlocked: &Unlocked,
    ) -> Result<Option<Volume>, VolumeError> {
        let Some((segment, places)) = self.places_on(&**data)? else {
            return Ok(None);
        };
        let (cipher, sector_size) = (segment.encryption, segment.sector_size);
        let crypt = AuthenticatedCrypt::new(cipher, sector_size, &unlocked.key)?;
        crypt.log();
        Ok(Some(Volume::of_tagged(Tagged {
            storage: data.clone(),
            places,
            crypt,
        })))
    }

    fn places_on(
        &self,
        data: &dyn Backend,
    ) -> Result<Option<(&AuthenticatedSegment, Places)>, VolumeError> {
        let Some(segment) = self.tagged_segment_on(data)? else {
            return Ok(None);
        };
        let places = places(data, segment)?;
        check_journal(data, &places)?;
        Ok(Some((segment, places)))
    }

    /// The segment, if it can be on `data`.
    fn tagged_segment_on(
        &self,
        data: &dyn Backend,
    ) -> Result<Option<&AuthenticatedSegment>, VolumeError> {
        let Some(segment) = self.authenticated_segment() else {
            return Ok(None);
        };
        self.refuse_requirements()?;
        if segment.offset == 0 && std::ptr::addr_eq(data, &*self.storage) {
            return Err(VolumeError::Detached);
        }
        Ok(Some(segment))
    }

    fn refuse_requirements(&self) -> Result<(), VolumeError> {
        match self.requirements()[..] {
            [] => Ok(()),
            ref names => Err(VolumeError::Unsupported(format!(
                "requirements {}",
                names.join(", ")
            ))),
        }
    }
}
