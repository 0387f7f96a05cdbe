//! Changes the size of a volume.

use super::open::Image;
use super::storage::Storage;
use super::trust::kept::Task;
use super::{Advice, Error, size};
use crate::backend::IoError;
use crate::container::Container;
use crate::volume::Volume;

/// A change of the size of a volume that was checked, and is not done yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resize {
    /// The size before, in bytes of plaintext.
    pub old: u64,
    /// The new size.
    pub new: u64,
    volume: String,
}

impl Resize {
    /// Checks that a volume can have `new` bytes of plaintext, as far as that is known before.
    ///
    /// # Errors
    /// [`Kind::Parameters`](super::Kind::Parameters) if the storage has a fixed size, and a header
    /// that describes no volume which fits the storage.
    pub fn look(
        image: &Image,
        container: &Container,
        data: &Storage,
        new: u64,
    ) -> Result<Self, Error> {
        let volume = image.location.to_string();
        data.refuse_tags(container, Task::Resize)
            .map_err(|error| error.about(&volume))?;
        let old = data.volume_size(container);
        let old = old.map_err(|error| Error::from(error).about(&volume))?;
        if data.has_fixed_size() && data.qcow2.is_none() && new != old {
            let message = format!("a volume on {volume} reaches to its end: {old} bytes");
            let advice = match image.location.part() {
                Some(_) => Advice::ResizePartition,
                None => Advice::SizeOfStorage,
            };
            return Err(Error::parameters(message).advise(advice));
        }
        Ok(Self { old, new, volume })
    }

    /// What would be lost, if the volume shrinks. The caller decides.
    #[must_use]
    pub fn loss(&self) -> Option<String> {
        let cut = self.old.checked_sub(self.new).filter(|cut| *cut > 0)?;
        Some(format!(
            "the last {} of {} would be cut off; shrink the file system in it first",
            size::human(cut),
            self.volume
        ))
    }

    /// Changes the size. `volume` is the plaintext, if it is in use.
    ///
    /// # Errors
    /// Those of [`Container::resize`] and [`Volume::resize`].
    pub fn execute(
        &self,
        container: &mut Container,
        data: &Storage,
        volume: Option<&Volume>,
    ) -> Result<(), Error> {
        let (new, shrinks) = (self.new, self.new < self.old);
        if let Some(image) = &data.qcow2 {
            let resized = match volume {
                Some(volume) => volume.resize(new),
                None => image.resize(new),
            };
            return resized.map_err(|error| match error {
                IoError::Unaligned { unit, .. } if shrinks => {
                    Error::from(error).advise(Advice::WholeClusters(unit))
                }
                error => error.into(),
            });
        }
        // No client writes behind the new end while the storage is cut.
        if let Some(volume) = volume.filter(|_| shrinks) {
            volume.set_size(new)?;
        }
        let resized = container.resize(data.backend.as_ref(), new);
        let Some(volume) = volume else {
            return Ok(resized?);
        };
        match &resized {
            Ok(()) if !shrinks => volume.set_size(new)?,
            Ok(()) => {}
            // The header may state the new size already, or the storage may be cut.
            Err(_) if shrinks => {
                if let Ok(size) = data.volume_size(container) {
                    // If the storage is smaller than that, the volume keeps the new size.
                    let _ = volume.set_size(size);
                }
            }
            Err(_) => {}
        }
        Ok(resized?)
    }
}
