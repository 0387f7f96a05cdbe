//! A storage volume: a disk image in a pool. Its bytes are those in the storage, which are
//! ciphertext if the volume is encrypted.

use core::fmt;
use std::io::{Read, Write};

use super::connection::Connection;
use super::error::LibvirtError;
use super::library::call::{self, Handle};
use super::pool::Pool;
use super::transfer::Stream;

/// A volume in a storage pool.
pub struct StorageVolume(pub(super) Handle<call::Volume>);

/// The sizes of a volume, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeInfo {
    /// The size of its contents.
    pub capacity: u64,
    /// The space that is allocated in the storage.
    pub allocation: u64,
}

/// `VIR_STORAGE_VOL_RESIZE_SHRINK`.
const SHRINK: u32 = 4;

impl StorageVolume {
    /// Its name in the pool.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn name(&self) -> Result<String, LibvirtError> {
        self.0.functions.volume_name.call(&self.0)
    }

    /// Its path on the host, or its name in a network pool.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn path(&self) -> Result<String, LibvirtError> {
        self.0.functions.volume_path.call(&self.0)
    }

    /// Its description.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn xml(&self) -> Result<String, LibvirtError> {
        self.0.functions.volume_xml.call(&self.0, 0)
    }

    /// Its sizes.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn info(&self) -> Result<VolumeInfo, LibvirtError> {
        let info = self.0.functions.volume_info.call(&self.0)?;
        Ok(VolumeInfo {
            capacity: info.capacity,
            allocation: info.allocation,
        })
    }

    /// The pool that it is in.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn pool(&self) -> Result<Pool, LibvirtError> {
        self.0.functions.pool_of_volume.call(&self.0).map(Pool)
    }

    /// Deletes it with its data.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn delete(&self) -> Result<(), LibvirtError> {
        self.0.functions.delete_volume.call(&self.0, 0)
    }

    /// Changes its capacity, in bytes. A smaller one needs `shrink`.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn resize(&self, capacity: u64, shrink: bool) -> Result<(), LibvirtError> {
        let flags = if shrink { SHRINK } else { 0 };
        self.0
            .functions
            .resize_volume
            .call(&self.0, capacity, flags)
    }

    /// Writes all of `data` into it from byte `offset` on, over its present contents.
    ///
    /// # Errors
    /// [`LibvirtError::Local`] when `data` cannot be read, …. A part may have been written then.
    pub fn upload(
        &self,
        connection: &Connection,
        offset: u64,
        data: &mut dyn Read,
    ) -> Result<(), LibvirtError> {
        let stream = Stream::new(connection)?;
        self.0
            .functions
            .upload
            .call(&self.0, stream.handle(), offset, 0)?;
        stream.send(data)
    }

    /// Copies `len` bytes, or all bytes up to its end, from byte `offset` on to `to`.
    ///
    /// # Errors
    /// [`LibvirtError::Local`] when `to` cannot be written, …
    pub fn download(
        &self,
        connection: &Connection,
        offset: u64,
        len: Option<u64>,
        to: &mut dyn Write,
    ) -> Result<(), LibvirtError> {
        if len == Some(0) {
            return Ok(());
        }
        let stream = Stream::new(connection)?;
        self.0
            .functions
            .download
            .call(&self.0, stream.handle(), offset, len.unwrap_or(0))?;
        stream.receive(to)
    }
}

impl Connection {
    /// The storage volume with this path, in any started pool.
    ///
    /// # Errors
    /// [`LibvirtError::NoVolume`], …
    pub fn volume_by_path(&self, path: &str) -> Result<StorageVolume, LibvirtError> {
        self.0
            .functions
            .volume_by_path
            .call(&self.0, path)
            .map(StorageVolume)
    }
}

impl Pool {
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

impl fmt::Debug for StorageVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StorageVolume")
            .field(&self.name().unwrap_or_default())
            .finish()
    }
}
