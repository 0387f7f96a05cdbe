//! A disk that is to be served.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use super::device::Device;
use super::serve_error::ServeError;
use crate::export::Export;

/// An export and the socket where the client of its guest connects.
#[derive(Debug)]
pub struct Disk {
    pub(super) listener: UnixListener,
    pub(super) device: Arc<Device>,
}

impl Disk {
    /// Serves `export` to the client that connects to `listener`, in blocks of 512 bytes.
    #[must_use]
    pub fn new(export: Arc<Export>, listener: UnixListener) -> Self {
        let device = Arc::new(Device::new(export, 512));
        Self { listener, device }
    }

    /// Sets the size of the blocks that the guest sees. A smaller block of the guest than the unit
    /// of the storage ([`Export::unit`]) is served too, and the guest is told the unit.
    ///
    /// # Errors
    /// [`ServeError::BlockSize`] for one that is not 512, 1024, 2048 or 4096 bytes.
    pub fn with_block_size(self, block_size: u32) -> Result<Self, ServeError> {
        if !block_size.is_power_of_two() || !(512..=4096).contains(&block_size) {
            return Err(ServeError::BlockSize(block_size));
        }
        let device = Device::new(self.device.export.clone(), block_size);
        Ok(Self {
            device: Arc::new(device),
            ..self
        })
    }

    /// The export.
    pub(super) fn export(&self) -> &Arc<Export> {
        &self.device.export
    }
}
