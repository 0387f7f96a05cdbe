//! A storage pool.

use core::fmt;

use super::StorageVolume;
use super::error::LibvirtError;
use super::library::call::{self, Handle};

/// A storage pool: a directory, volume group or cluster in which libvirt manages storage volumes.
pub struct Pool(pub(super) Handle<call::Pool>);

/// The sizes of a pool, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolInfo {
    /// The whole size.
    pub capacity: u64,
    /// The part that is in use.
    pub allocation: u64,
    /// The part that is free.
    pub available: u64,
}

impl Pool {
    /// Its name.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn name(&self) -> Result<String, LibvirtError> {
        self.0.functions.pool_name.call(&self.0)
    }

    /// Its UUID.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn uuid(&self) -> Result<uuid::Uuid, LibvirtError> {
        self.0.functions.pool_uuid.call(&self.0)
    }

    /// Its description.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn xml(&self) -> Result<String, LibvirtError> {
        self.0.functions.pool_xml.call(&self.0, 0)
    }

    /// Whether it is started. Only then are its volumes known.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn is_active(&self) -> Result<bool, LibvirtError> {
        self.0.functions.pool_is_active.holds(&self.0)
    }

    /// Its sizes.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn info(&self) -> Result<PoolInfo, LibvirtError> {
        let info = self.0.functions.pool_info.call(&self.0)?;
        Ok(PoolInfo {
            capacity: info.capacity,
            allocation: info.allocation,
            available: info.available,
        })
    }

    /// Makes libvirt list its volumes anew.
    ///
    /// # Errors
    /// [`LibvirtError::State`] when it is not started, …
    pub fn refresh(&self) -> Result<(), LibvirtError> {
        self.0.functions.refresh_pool.call(&self.0, 0)
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn start(&self) -> Result<(), LibvirtError> {
        self.0.functions.start_pool.call(&self.0, 0)
    }

    /// Stops it. The data is kept.
    ///
    /// # Errors
    /// [`LibvirtError::State`] when it is not started, …
    pub fn stop(&self) -> Result<(), LibvirtError> {
        self.0.functions.stop_pool.call(&self.0).map(drop)
    }

    /// Removes its definition. The data is kept.
    ///
    /// # Errors
    /// [`LibvirtError::State`] while it is started, …
    pub fn undefine(&self) -> Result<(), LibvirtError> {
        self.0.functions.undefine_pool.call(&self.0).map(drop)
    }

    /// All its volumes.
    ///
    /// # Errors
    /// [`LibvirtError::State`] when it is not started, …
    pub fn volumes(&self) -> Result<Vec<StorageVolume>, LibvirtError> {
        let found = self.0.functions.volumes.call(&self.0, 0)?;
        Ok(found.into_iter().map(StorageVolume).collect())
    }

    /// The volume of this name.
    ///
    /// # Errors
    /// [`LibvirtError::NoVolume`], …
    pub fn volume(&self, name: &str) -> Result<StorageVolume, LibvirtError> {
        self.0
            .functions
            .volume_by_name
            .call(&self.0, name)
            .map(StorageVolume)
    }

    /// Creates a volume.
    ///
    /// # Errors
    /// [`LibvirtError::Exists`], [`LibvirtError::Invalid`], …
    pub fn create_volume(&self, xml: &str) -> Result<StorageVolume, LibvirtError> {
        self.0
            .functions
            .create_volume
            .call(&self.0, xml, 0)
            .map(StorageVolume)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool")
            .field(&self.name().unwrap_or_default())
            .finish()
    }
}
