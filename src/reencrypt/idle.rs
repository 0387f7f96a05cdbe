//! A volume that clients use, and whose reencryption can begin meanwhile.

use std::sync::Arc;

use super::error::ReencryptError;
use crate::backend::Backend;
use crate::container::{
    Container, PreparedReencryption, ReencryptionError, ReencryptionKeys, Unlocked,
};
use crate::layout::two_sides::TwoSides;
use crate::volume::Volume;

/// A volume that clients use, and whose reencryption can begin meanwhile. No other program may have
/// the header or the data open.
pub struct Idle {
    pub(super) container: Container,
    pub(super) data: Arc<dyn Backend>,
    pub(super) volume: Arc<Volume>,
    pub(super) sides: Arc<TwoSides>,
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Idle({} bytes)", self.volume.size())
    }
}

impl Idle {
    /// The volume of `container`, whose data is on `data`. Where its size allows it, its units are
    /// 4096 bytes, so that a reencryption can make its sectors larger.
    ///
    /// # Errors
    /// As [`Container::volume`].
    pub fn open(
        container: Container,
        data: Arc<dyn Backend>,
        unlocked: &Unlocked,
    ) -> Result<Self, ReencryptError> {
        let volume = container.volume(data.clone(), unlocked);
        let volume = volume.map_err(ReencryptionError::from)?;
        let (volume, sides) = volume.into_two_sides()?.ok_or(ReencryptError::NotPending)?;
        Ok(Self {
            container,
            data,
            volume: Arc::new(volume),
            sides,
        })
    }

    /// The volume, for clients.
    #[must_use]
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// The header.
    #[must_use]
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// Lets the storage keep its space, or give it away again: discards of clients have no effect
    /// meanwhile.
    pub fn keep_space(&self, keeps: bool) {
        let _all = self.volume.hold_all(0..u64::MAX);
        self.sides.keep_space(keeps);
    }

    /// Begins a reencryption, which was prepared for [`container`](Self::container) with
    /// [`online`](crate::container::BeginReencryption::online), durably. Clients go on. If a flush
    /// fails in it, every later write and flush of the volume fails, since what clients have
    /// written may be lost.
    ///
    /// # Errors
    /// Returns [`ReencryptError::Header`].
    pub fn begin(
        &mut self,
        prepared: PreparedReencryption,
    ) -> Result<ReencryptionKeys, ReencryptError> {
        let container = &mut self.container;
        self.sides
            .change_header(|| Ok(container.commit_reencryption(prepared)?))
    }
}
