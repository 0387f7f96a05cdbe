//! A storage pool.

use core::fmt;

use super::connection::Connection;
use super::error::LibvirtError;
use super::library::call::{self, Handle};

/// A storage pool: a directory, volume group or cluster in which libvirt manages storage volumes.
pub struct Pool(pub(super) Handle<call::Pool>);

/// The sizes of a pool, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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

    /// Makes libvirt list its volumes again.
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
}

impl Connection {
    /// All storage pools, started or not.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn pools(&self) -> Result<Vec<Pool>, LibvirtError> {
        let found = self.0.functions.pools.call(&self.0, 0)?;
        Ok(found.into_iter().map(Pool).collect())
    }

    /// The storage pool of this name, or else of this UUID.
    ///
    /// # Errors
    /// [`LibvirtError::NoPool`], …
    pub fn pool(&self, name_or_uuid: &str) -> Result<Pool, LibvirtError> {
        let functions = self.0.functions;
        let by_name = functions.pool_by_name.call(&self.0, name_or_uuid);
        match by_name {
            Err(LibvirtError::NoPool(_)) if uuid::Uuid::try_parse(name_or_uuid).is_ok() => {
                functions.pool_by_uuid.call(&self.0, name_or_uuid)
            }
            other => other,
        }
        .map(Pool)
    }

    /// Defines a storage pool. It is not started yet.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn define_pool(&self, xml: &str) -> Result<Pool, LibvirtError> {
        self.0.functions.define_pool.call(&self.0, xml, 0).map(Pool)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool")
            .field(&self.name().unwrap_or_default())
            .finish()
    }
}
