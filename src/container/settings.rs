//! What a header says beside its keyslots: tokens, labels, UUID, and how large the volume is.
//!
//! LUKS2 On-Disk Format 1.1, sections 2.1 (label, subsystem, UUID) and 3.5 (tokens). Tokens are kept as they are,
//! whatever their type; only `type` and `keyslots` are looked at.

use luksmith_formats::json::Value;
use uuid::Uuid;

use luksmith_formats::luks2::{self, Segment, SegmentSize};

use super::plan::WritePlan;
use super::rewrite::{SectorOrder, write_luks1};
use super::{Container, Header, HeaderError, VolumeError};
use crate::backend::Backend;

/// What [`Container::configure`] changes. What is `None` stays as it is.
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

    /// The volume's UUID.
    #[must_use]
    pub fn uuid(mut self, uuid: impl Into<Option<Uuid>>) -> Self {
        self.uuid = uuid.into();
        self
    }
}

impl Container {
    /// Changes labels and UUID.
    ///
    /// # Errors
    /// [`HeaderError`]; LUKS1 has no labels.
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

    /// Adds a token, at the lowest free number unless one is given, and returns its number.
    ///
    /// # Errors
    /// [`HeaderError::TokenExists`] unless `replace`; [`HeaderError::Header`] when the token is not a valid one
    /// (an object with `type` and `keyslots`, naming keyslots that exist).
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

    /// Removes a token. The keyslots that it names stay.
    ///
    /// # Errors
    /// [`HeaderError::NoSuchToken`].
    pub fn remove_token(&mut self, id: u32) -> Result<(), HeaderError> {
        self.require_token(id)?;
        self.change_luks2("tokens", |header| Ok(header.metadata.remove_token(id)?))
    }

    /// Says whether a token is for a keyslot.
    ///
    /// # Errors
    /// [`HeaderError::NoSuchToken`]; [`HeaderError::Header`] when there is no such keyslot.
    pub fn assign_token(&mut self, id: u32, slot: u32, assigned: bool) -> Result<(), HeaderError> {
        self.require_token(id)?;
        self.change_luks2("tokens", |header| {
            Ok(header.metadata.assign_token(id, slot, assigned)?)
        })
    }

    /// Makes the plaintext device `size` bytes long. `data` is where the data lies. What lies beyond the end of a
    /// volume that shrinks is lost.
    ///
    /// # Errors
    /// [`HeaderError::Unsupported`] for a size that is not whole sectors, data that cannot be opened, or a
    /// detached header in place of its data;
    /// [`HeaderError::Io`] for a storage that cannot change its size.
    pub fn resize(&mut self, data: &dyn Backend, size: u64) -> Result<(), HeaderError> {
        self.check_requirements()?;
        let unsupported = |error: VolumeError| HeaderError::Unsupported(error.to_string());
        let segment = self.data_segment_on(data).map_err(unsupported)?;
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
        // Before anything is cut off where somebody else may have moved the data.
        self.check_unchanged()?;
        let grows = end > data.geometry().size;
        // The header never promises more than is there: it follows when growing, and leads when shrinking.
        if grows {
            data.resize(end)?;
            data.flush()?;
        }
        if segment.fixed_size.is_some_and(|fixed| fixed != size) {
            self.set_segment_size(size)?;
        }
        if !grows && end < data.geometry().size {
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
