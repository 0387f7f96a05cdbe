//! A header that is made without its data.

use std::sync::Arc;

use super::options::{NewVolume, check_size, measure, too_large};
use crate::backend::memory::MemoryBackend;
use crate::container::{self, Container, Undo};
use crate::secret::Passphrase;
use crate::task::{Error, Watch, Work, Working};

/// A new header in memory, for a volume whose storage another program makes.
#[non_exhaustive]
pub struct NewHeader {
    /// The header.
    pub container: Container,
    /// Its bytes.
    pub storage: Arc<MemoryBackend>,
    /// The start of the data in bytes, which is the length of the header.
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
        let (mut options, layout) = new.options(Some(size), true)?;
        check_size(Some(size), options.sector_size)?;
        measure(&new.cost, &mut options, watch)?;
        let offset = layout.data_offset;
        let length = usize::try_from(offset).map_err(|_| too_large())?;
        let storage = Arc::new(MemoryBackend::new(length));
        let open = container::OpenOptions::new(Undo::NotLookedFor).limits(new.limits);
        let interrupt = watch.interrupt();
        let deriving = Working::begin(watch, Work::Derive, None);
        let (container, _) =
            Container::create(storage.clone(), options, open, passphrase, interrupt)?;
        deriving.finish();
        Ok(Self {
            container,
            storage,
            offset,
        })
    }
}
