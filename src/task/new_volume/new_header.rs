//! A header that is made without its data, or a new image without data.

use std::sync::Arc;

use super::options::{Extent, NewVolume, check_size, measure, too_large};
use crate::backend::Backend;
use crate::backend::memory::MemoryBackend;
use crate::container::{self, Container, Undo};
use crate::layout::{NewImage, Qcow2};
use crate::secret::Passphrase;
use crate::task::open::ImageFormat;
use crate::task::{Error, Watch, Work, Working};

/// A new header in memory, for a volume whose storage another program makes.
#[non_exhaustive]
pub struct NewHeader {
    /// The header.
    pub container: Container,
    /// Its bytes, or those of the image that it is in.
    pub storage: Arc<MemoryBackend>,
    /// The start of the data in bytes, which is the length of the header. In an image the data is
    /// in clusters.
    pub offset: u64,
}

impl NewHeader {
    /// Measures the key derivation and makes the header of a volume of `size` bytes.
    ///
    /// # Errors
    /// Options that contradict, and an interrupt.
    pub fn make(
        mut new: NewVolume,
        size: u64,
        passphrase: &Passphrase,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        let (mut options, layout) = new.options(Some(size), true, None)?;
        check_size(Some(size), options.sector_size)?;
        measure(&new.cost, &mut options, watch)?;
        let offset = layout.data_offset;
        let (storage, header): (_, Arc<dyn Backend>) = match new.format {
            ImageFormat::Raw => {
                let length = usize::try_from(offset).map_err(|_| too_large())?;
                let storage = Arc::new(MemoryBackend::new(length));
                (storage.clone(), storage)
            }
            ImageFormat::Qcow2 => {
                new.check_format(Extent::Exactly(size))?;
                let storage = Arc::new(MemoryBackend::new(0));
                let mut image = NewImage::new(size, layout.header_size);
                if let Some(cluster_size) = new.cluster_size {
                    image = image.cluster_size(cluster_size);
                }
                let image = Qcow2::create(storage.clone(), &image)?;
                image.flush()?;
                (storage, image.header_storage())
            }
        };
        let open = container::OpenOptions::new(Undo::NotLookedFor).limits(new.limits);
        let interrupt = watch.interrupt();
        let deriving = Working::begin(watch, Work::Derive, None);
        let (container, _) = Container::create(header, options, open, passphrase, interrupt)?;
        deriving.finish();
        Ok(Self {
            container,
            storage,
            offset,
        })
    }
}
