//! A volume that was made and whose files do not have their names yet.

use crate::backend::Backend;
use crate::container::{Container, Unlocked};
use crate::task::copy::Fill;
use crate::task::new_file::NewFile;
use crate::task::openers::{Opener, Properties, QemuObstacle};
use crate::task::storage::Storage;
use crate::task::{Error, MadeFile, Watch, Work, Working, new_image};
use crate::volume::Volume;

use super::there::There;

/// A volume that was made. Its new files, and what was made on a server, are removed unless
/// [`Made::keep`] is called.
pub struct Made<'w> {
    /// Its header.
    pub container: Container,
    /// Its volume key.
    pub unlocked: Unlocked,
    /// The storage of its data.
    pub data: Storage,
    pub(super) opened: Properties,
    pub(super) grows: bool,
    pub(super) image: Option<NewFile<'w>>,
    pub(super) header: Option<NewFile<'w>>,
    /// New images in Ceph, and volumes in object stores. After the fields that have them open,
    /// since only a closed image is removed.
    pub(super) images: Vec<new_image::Made>,
    pub(super) watch: &'w dyn Watch,
    pub(super) _there: There,
}

impl Made<'_> {
    /// Whether the data is in a storage that existed, such as a device or an export, and stays
    /// overwritten after a failure.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.image.is_none() && self.images.is_empty()
    }

    /// The plaintext of the new volume.
    ///
    /// # Errors
    /// As [`Container::volume`].
    pub fn volume(&self) -> Result<Volume, Error> {
        self.data.volume(&self.container, &self.unlocked)
    }

    /// Options with which [`encrypt`](crate::task::copy::encrypt) fills every byte of this volume.
    #[must_use]
    pub fn fill(&self) -> Fill {
        let mut fill = Fill::new(self.data.depth());
        fill.fixed = self.is_in_place();
        fill.grows = self.grows;
        fill
    }

    /// The length of the shortest run of zeroes that need not be written, in bytes, if there is
    /// one: [`Fill::hole`] of a sparse copy.
    #[must_use]
    pub fn hole(&self) -> Option<usize> {
        let image = self.data.qcow2.as_ref()?;
        Some(usize::try_from(image.cluster_size()).unwrap_or(usize::MAX))
    }

    /// The programs that open the volume with its passphrase, in the order of their names.
    #[must_use]
    pub fn openers(&self) -> Vec<Opener> {
        self.opened.openers()
    }

    /// Why QEMU's own driver does not open the volume, if it does not.
    #[must_use]
    pub fn qemu_obstacle(&self) -> Option<QemuObstacle> {
        self.opened.qemu_obstacle()
    }

    /// The size of the plaintext in bytes.
    ///
    /// # Errors
    /// As [`Storage::volume_size`].
    pub fn size(&self) -> Result<u64, Error> {
        Ok(self.data.volume_size(&self.container)?)
    }

    /// Completes the volume: makes everything durable and gives the files their names. Returns the
    /// files that were made.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn keep(self) -> Result<Vec<MadeFile>, Error> {
        Ok(self.complete()?.0)
    }

    /// As [`keep`](Self::keep), and returns the key of the volume, which is closed then.
    ///
    /// # Errors
    /// As [`keep`](Self::keep).
    pub fn keep_key(self) -> Result<Unlocked, Error> {
        Ok(self.complete()?.1)
    }

    fn complete(self) -> Result<(Vec<MadeFile>, Unlocked), Error> {
        let flushing = Working::begin(self.watch, Work::Flush, None);
        match &self.data.qcow2 {
            Some(image) => image.flush()?,
            None => self.data.backend.flush()?,
        }
        // An export may have been replaced by another one while the data was written.
        self.container.check_unchanged()?;
        let mut made = Vec::new();
        for file in self.header.into_iter().chain(self.image) {
            made.push(file.keep()?);
        }
        self.images.into_iter().for_each(new_image::Made::keep);
        flushing.finish();
        Ok((made, self.unlocked))
    }
}
