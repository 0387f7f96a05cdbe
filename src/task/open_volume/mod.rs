//! A volume that a program keeps open: its header and its plaintext behind one value, for bindings
//! to other languages.
//!
//! [`OpenVolume::open`] gives a locked volume. [`OpenVolume::unlock`] opens its plaintext, and then
//! the passphrase that was given authorizes changes of the keyslots. All methods take `&self`, from
//! any thread. [`Named`] has the options as text, and [`VolumeServer`] serves a volume in a thread
//! of its own.

#[cfg(feature = "vet")]
mod inspected;
mod key;
mod keyslots;
mod named;
#[cfg(feature = "nbd")]
mod server;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use luksmith_formats::json::Object;
use luksmith_formats::limits::Limits;

#[cfg(feature = "vet")]
pub use inspected::inspect;
pub use key::{Ask, Key, MAX_GIVEN};
pub use keyslots::Removal;
pub use named::{Force, Named, Task};
#[cfg(feature = "nbd")]
pub use server::VolumeServer;

use super::exports::Opening;
use super::new_volume::Made;
use super::open::Image;
use super::outcome::Described;
use super::resize::Resize;
use super::storage::Storage;
use super::{Advice, Error, Kind, Watch, Work, Working};
use crate::backend::file::OpenOptions;
use crate::container::{Container, KeyslotInfo, Unlocked, VolumeError, Which};
use crate::secret::Passphrase;
use crate::volume::Volume;

/// Makes the process undumpable, as [`sys::harden`](crate::sys::harden). A program calls it before
/// it reads the first secret.
///
/// # Errors
/// What the system reports.
pub fn harden() -> Result<(), Error> {
    crate::sys::harden()
        .map_err(|error| Error::new(Kind::of_io(&error), error).about("cannot turn off core dumps"))
}

/// A volume that a program keeps open.
pub struct OpenVolume {
    image: Image,
    data: Storage,
    read_only: bool,
    header: RwLock<Container>,
    opened: RwLock<Option<Arc<Opened>>>,
}

/// What a passphrase opens.
struct Opened {
    unlocked: Unlocked,
    volume: Arc<Volume>,
}

impl OpenVolume {
    /// Opens the header and the data, for writing unless `read_only`. The volume is still locked.
    ///
    /// # Errors
    /// [`Kind::Parameters`] if `file` takes no lock and the volume is opened for writing; those of
    /// [`Image::open_data_to_read`] and [`Image::refuse_header_as_data`].
    pub fn open(
        image: Image,
        read_only: bool,
        file: OpenOptions,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        if file.is_shared() && !read_only {
            let message = "force-share: a volume that is opened for writing is not shared";
            return Err(Error::parameters(message));
        }
        let (interrupt, _opening) = watch.interrupt().while_heeded();
        let watch = &Opening { watch, interrupt };
        let limits = Limits::default();
        let (container, data) = match read_only {
            true => image.open_data_to_read(file, limits, watch)?,
            false => image.open_data_to_write(None, limits, watch)?,
        };
        image.refuse_header_as_data(&container, &data)?;
        Ok(Self::new(image, container, data, read_only))
    }

    /// A volume that was made, with its names, and unlocked. `image` says where it was made.
    ///
    /// Its files are closed and opened again, so another program may open them first.
    ///
    /// # Errors
    /// Those of [`Made::keep_key`] and [`open`](Self::open), after which the volume stays: with
    /// [`Kind::Busy`] another program has it open. [`VolumeError::WrongKey`] if another program has
    /// replaced it.
    pub fn made(made: Made<'_>, image: Image, watch: &dyn Watch) -> Result<Self, Error> {
        let unlocked = made.keep_key()?;
        // The container of a new volume knows no undo record, since its file had no name.
        let made = Self::open(image, false, OpenOptions::new(), watch)?;
        let volume = made.data.volume(&read(&made.header), &unlocked)?;
        let volume = Arc::new(volume);
        *written(&made.opened) = Some(Arc::new(Opened { unlocked, volume }));
        Ok(made)
    }

    fn new(image: Image, container: Container, data: Storage, read_only: bool) -> Self {
        Self {
            image,
            data,
            read_only,
            header: RwLock::new(container),
            opened: RwLock::new(None),
        }
    }

    /// Unlocks it, and returns the number of the keyslot. This takes as long as the key derivation.
    /// If it is unlocked already, this passphrase authorizes later changes of the keyslots.
    ///
    /// # Errors
    /// Those of [`Container::unlock`] and [`Storage::volume`]: among them [`VolumeError::WrongKey`]
    /// for the passphrase of an unbound keyslot.
    pub fn unlock(
        &self,
        passphrase: &Passphrase,
        which: Which,
        watch: &dyn Watch,
    ) -> Result<Option<u32>, Error> {
        let about = |error: Error| error.about(&self.image.location);
        let header = read(&self.header);
        let working = Working::begin(watch, Work::Derive, None);
        let unlocked = header.unlock(passphrase, which, watch.interrupt());
        let unlocked = unlocked.map_err(Error::from).map_err(about)?;
        working.finish();
        if !unlocked.is_volume_key() {
            return Err(about(VolumeError::WrongKey.into()));
        }
        let mut opened = written(&self.opened);
        let volume = match &*opened {
            // Two volumes of one storage would not know of each other's writes.
            Some(opened) => opened.volume.clone(),
            None => {
                let volume = self.data.volume(&header, &unlocked);
                Arc::new(volume.map_err(about)?)
            }
        };
        let slot = unlocked.slot();
        *opened = Some(Arc::new(Opened { unlocked, volume }));
        Ok(slot)
    }

    /// The plaintext.
    ///
    /// # Errors
    /// [`Kind::Parameters`] if it is not unlocked.
    pub fn volume(&self) -> Result<Arc<Volume>, Error> {
        Ok(self.opened()?.volume.clone())
    }

    /// Whether it is unlocked.
    #[must_use]
    pub fn is_unlocked(&self) -> bool {
        read(&self.opened).is_some()
    }

    /// Whether it was opened for reading.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Which volume it is.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The size of the plaintext in bytes, if it is known: not for a detached header without its
    /// data.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        // The other functions lock the header first. So this one holds no lock when it locks it.
        let opened = read(&self.opened).clone();
        match opened {
            Some(opened) => Some(opened.volume.size()),
            None => self.image.data_size(&read(&self.header), &self.data),
        }
    }

    /// Calls `with` with the header, for what a source of passphrases has to know of it.
    pub fn with_header<T>(&self, with: impl FnOnce(&Container) -> T) -> T {
        with(&read(&self.header))
    }

    /// All that the header says: the document of `luksmith info --json`.
    #[must_use]
    pub fn describe(&self) -> Object {
        Described::new(&self.image, &read(&self.header), &self.data).members()
    }

    /// The keyslots in use.
    #[must_use]
    pub fn keyslots(&self) -> Vec<KeyslotInfo> {
        read(&self.header).keyslots()
    }

    /// Changes the size to `size` bytes of plaintext.
    ///
    /// # Errors
    /// [`Kind::Permission`] if it would be cut and `shrink` does not permit that, and those of
    /// [`Resize::look`] and [`Resize::execute`].
    pub fn resize(&self, size: u64, shrink: bool) -> Result<(), Error> {
        let mut header = self.header_to_change()?;
        let resize = Resize::look(&self.image, &header, &self.data, size)?;
        if let Some(loss) = resize.loss().filter(|_| !shrink) {
            return Err(Error::new(Kind::Permission, loss).advise(Advice::Permit("shrink")));
        }
        let opened = read(&self.opened).clone();
        let volume = opened.as_ref().map(|opened| &*opened.volume);
        resize.execute(&mut header, &self.data, volume)
    }

    fn opened(&self) -> Result<Arc<Opened>, Error> {
        let opened = read(&self.opened).clone();
        opened.ok_or_else(|| {
            Error::parameters("the volume is not unlocked").about(&self.image.location)
        })
    }

    /// The header, for a change of it.
    fn header_to_change(&self) -> Result<RwLockWriteGuard<'_, Container>, Error> {
        match self.read_only {
            true => {
                let error = Error::new(Kind::Permission, "it was opened for reading");
                Err(error.about(&self.image.location))
            }
            false => Ok(written(&self.header)),
        }
    }
}

// A thread that panicked has left nothing half done: changes of a header are write plans.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn written<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
