//! Changes the settings of a header: tokens, labels, the UUID, and the size of the volume.
//!
//! Reference: LUKS2 On-Disk Format 1.1, sections 2.1 (label, subsystem, UUID) and 3.5 (tokens).
//! Tokens of every type are kept as they are; only their members `type` and `keyslots` are read.

use luksmith_formats::json::Value;
use uuid::Uuid;

use luksmith_formats::luks2::{self, Segment, SegmentSize};

use super::plan::WritePlan;
use super::rewrite::{SectorOrder, write_luks1};
use super::{Container, Header, HeaderError, VolumeError};
use crate::backend::Backend;

/// The settings that [`Container::configure`] changes. `None` leaves a setting unchanged.
#[derive(Clone, Debug, Default)]
pub struct Configure {
    label: Option<String>,
    subsystem: Option<String>,
    uuid: Option<Uuid>,
}

impl Configure {
    /// Changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The LUKS2 label, at most 47 bytes. An empty one removes it.
    #[must_use]
    pub fn label(mut self, label: impl Into<Option<String>>) -> Self {
        self.label = label.into();
        self
    }

    /// The LUKS2 subsystem label, at most 47 bytes. An empty one removes it.
    #[must_use]
    pub fn subsystem(mut self, subsystem: impl Into<Option<String>>) -> Self {
        self.subsystem = subsystem.into();
        self
    }

    /// The UUID of the volume.
    #[must_use]
    pub fn uuid(mut self, uuid: impl Into<Option<Uuid>>) -> Self {
        self.uuid = uuid.into();
        self
    }
}

impl Container {
    /// Changes the labels and the UUID.
    ///
    /// # Errors
    /// Returns [`HeaderError`]. LUKS1 has no labels.
    pub fn configure(&mut self, change: &Configure) -> Result<(), HeaderError> {
        if let Header::Luks1(header) = &self.header {
            if change.label.is_some() || change.subsystem.is_some() {
                return Err(HeaderError::Unsupported("LUKS1 has no labels".into()));
            }
            let mut next = header.clone();
            if let Some(uuid) = change.uuid {
                next.uuid = uuid.to_string();
            }
            let mut plan = WritePlan::default();
            write_luks1(&mut plan, header, &next, SectorOrder::Activate);
            return Ok(self.commit(&plan, Header::Luks1(next))?);
        }
        self.change_luks2("labels", |header| {
            if let Some(label) = &change.label {
                header.label.clone_from(label);
            }
            if let Some(subsystem) = &change.subsystem {
                header.subsystem.clone_from(subsystem);
            }
            if let Some(uuid) = change.uuid {
                header.uuid = uuid.to_string();
            }
            Ok(())
        })
    }

    /// Adds a token, and returns its number. Without a given number it gets the lowest free one.
    ///
    /// # Errors
    /// Returns [`HeaderError::TokenExists`] if the number is in use, unless `replace` is set.
    /// Returns [`HeaderError::Header`] if the token is not valid: it has to be an object with
    /// `type` and `keyslots` that names existing keyslots.
    pub fn add_token(
        &mut self,
        id: Option<u32>,
        token: Value,
        replace: bool,
    ) -> Result<u32, HeaderError> {
        let Header::Luks2(header) = &self.header else {
            return Err(HeaderError::Unsupported("LUKS1 has no tokens".into()));
        };
        let taken = header.metadata.tokens();
        let id = match id {
            Some(id) if taken.contains_key(&id) && !replace => {
                return Err(HeaderError::TokenExists(id));
            }
            Some(id) => id,
            None => (0..luks2::MAX_OBJECTS)
                .find(|id| !taken.contains_key(id))
                .ok_or(HeaderError::TokensFull)?,
        };
        self.change_luks2("tokens", |header| {
            Ok(header.metadata.set_token(id, token)?)
        })?;
        Ok(id)
    }

    /// Removes a token. Its keyslots stay.
    ///
    /// # Errors
    /// Returns [`HeaderError::NoSuchToken`] if it does not exist.
    pub fn remove_token(&mut self, id: u32) -> Result<(), HeaderError> {
        self.require_token(id)?;
        self.change_luks2("tokens", |header| Ok(header.metadata.remove_token(id)?))
    }

    /// Sets whether a token is for a keyslot.
    ///
    /// # Errors
    /// Returns [`HeaderError::NoSuchToken`] if the token does not exist, and
    /// [`HeaderError::Header`] if the keyslot does not exist.
    pub fn assign_token(&mut self, id: u32, slot: u32, assigned: bool) -> Result<(), HeaderError> {
        self.require_token(id)?;
        self.change_luks2("tokens", |header| {
            Ok(header.metadata.assign_token(id, slot, assigned)?)
        })
    }

    /// Changes the size of the volume to `size` bytes. `data` is the storage of the data. If the
    /// volume shrinks, the data after its new end is lost.
    ///
    /// A volume of fixed size may end before its storage does. What is behind it is not changed:
    /// the storage then keeps its size, and the volume can only shrink.
    ///
    /// # Errors
    /// Returns [`HeaderError::Unsupported`] if the size is not a whole number of sectors, if the
    /// data cannot be opened, or if `data` is the storage of a detached header, and
    /// [`HeaderError::Behind`] if the volume would grow over what is behind it. Returns
    /// [`HeaderError::Io`] if the storage cannot change its size.
    pub fn resize(&mut self, data: &dyn Backend, size: u64) -> Result<(), HeaderError> {
        self.check_requirements()?;
        let unsupported = |error: VolumeError| HeaderError::Unsupported(error.to_string());
        let segment = self.data_segment_on(data).map_err(unsupported)?;
        segment.cipher.check_writable()?;
        if size == 0 {
            let reason = "a volume has one sector at least".to_owned();
            return Err(HeaderError::Unsupported(reason));
        }
        if !size.is_multiple_of(u64::from(segment.sector_size)) {
            let reason = format!(
                "{size} bytes are not whole sectors of {}",
                segment.sector_size
            );
            return Err(HeaderError::Unsupported(reason));
        }
        let end = segment.offset.checked_add(size).ok_or_else(|| {
            HeaderError::Unsupported(format!("{size} bytes do not fit any storage"))
        })?;
        let storage_size = data.geometry().size;
        let old_size = self.data_size(storage_size).map_err(unsupported)?;
        if size == old_size {
            return Ok(());
        }
        // A volume to the end of the storage has at most a part of a sector behind it.
        let old_end = segment.offset + old_size;
        let is_last = segment.fixed_size.is_none() || storage_size <= old_end;
        if !is_last && end > old_end {
            return Err(HeaderError::Behind {
                end: old_end,
                size: storage_size,
            });
        }
        // Checked before the storage is cut, since another program may have moved the data.
        self.check_unchanged()?;
        let grows = end > storage_size;
        // The header never states more data than there is: it changes after the storage when the
        // volume grows, and before the storage when it shrinks.
        if grows {
            data.resize(end)?;
            data.flush()?;
        }
        if segment.fixed_size.is_some_and(|fixed| fixed != size) {
            self.set_segment_size(size)?;
        }
        if is_last && end < storage_size {
            data.resize(end)?;
            data.flush()?;
        }
        Ok(())
    }

    fn set_segment_size(&mut self, size: u64) -> Result<(), HeaderError> {
        self.change_luks2("segment sizes", |header| {
            let (id, segment) = header.metadata.data_segment()?;
            let mut segment = segment.clone();
            segment.size = SegmentSize::Fixed(size);
            Ok(header.metadata.set_segment(id, &Segment::Crypt(segment))?)
        })
    }

    fn require_token(&self, id: u32) -> Result<(), HeaderError> {
        match &self.header {
            Header::Luks1(_) => Err(HeaderError::Unsupported("LUKS1 has no tokens".into())),
            Header::Luks2(header) if header.metadata.tokens().contains_key(&id) => Ok(()),
            Header::Luks2(_) => Err(HeaderError::NoSuchToken(id)),
        }
    }

    fn change_luks2(
        &mut self,
        what: &str,
        change: impl FnOnce(&mut luks2::Header) -> Result<(), HeaderError>,
    ) -> Result<(), HeaderError> {
        self.check_requirements()?;
        let Header::Luks2(header) = &self.header else {
            return Err(HeaderError::Unsupported(format!("LUKS1 has no {what}")));
        };
        let mut next = header.clone();
        change(&mut next)?;
        let mut plan = WritePlan::default();
        self.write_luks2(&mut plan, &mut next)?;
        Ok(self.commit(&plan, Header::Luks2(next))?)
    }
}
