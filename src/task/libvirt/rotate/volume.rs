//! One volume of a rotation: its header, and how its keyslots are changed.

use super::error::RotateError;
use super::inventory;
use super::live::{Live, Way};
use super::options::RotateOptions;
use crate::backend::file::OpenOptions;
use crate::container::{Container, NewKeyslot, UnlockError, Unlocked, Version, Which};
use crate::libvirt::{Connection, Domain};
use crate::qemu::OpenVolume;
use crate::secret::Passphrase;
use crate::task::open::Image;
use crate::task::{Advice, Error, Kind, Watch};

/// A volume.
pub(super) struct Volume<'a> {
    /// Its place, as text.
    pub(super) place: String,
    image: Image,
    options: &'a RotateOptions<'a>,
    /// The domains that have it open.
    running: Vec<Domain>,
}

/// How the keyslots are changed.
enum By<'a> {
    /// In the header, by this process.
    Us(Box<Container>),
    /// By the QEMU that has the volume open.
    Qemu(Live<'a>),
}

impl<'a> Volume<'a> {
    pub(super) fn new(
        connection: &Connection,
        place: &str,
        known: &inventory::Volume,
        options: &'a RotateOptions<'a>,
    ) -> Result<Self, Error> {
        if let Some(why) = known.beyond {
            return Err(Error::from(RotateError::Beyond(why)).about(place));
        }
        let location = known.location.clone();
        let location = location.ok_or_else(|| RotateError::Elsewhere(place.to_owned()))?;
        let running = known
            .running
            .iter()
            .map(|name| connection.domain(name))
            .collect::<Result<_, _>>()?;
        let mut image = Image::new(location);
        image.remote = options.remote;
        Ok(Self {
            place: place.to_owned(),
            image,
            options,
            running,
        })
    }

    /// Waits for what an interrupted run has left in the QEMU that has the volume open, and removes
    /// it. Fails if anything prevents a change of the keyslots there.
    pub(super) fn settle(&self, watch: &dyn Watch) -> Result<(), Error> {
        if self.running.is_empty() {
            return Ok(());
        }
        self.by(watch).map(drop)
    }

    /// Opens the header for reading, also while a QEMU has the volume open.
    pub(super) fn read(&self, watch: &dyn Watch) -> Result<Container, Error> {
        let file = OpenOptions::new().force_share(!self.running.is_empty());
        self.image.open_to_read(file, self.options.limits, watch)
    }

    /// The keyslot that this opens. `None` if it opens none.
    pub(super) fn opens(
        &self,
        watch: &dyn Watch,
        passphrase: &Passphrase,
        which: Which,
    ) -> Result<Option<u32>, Error> {
        match self
            .read(watch)?
            .unlock(passphrase, which, watch.interrupt())
        {
            Ok(unlocked) if unlocked.is_volume_key() => Ok(unlocked.slot()),
            Ok(_)
            | Err(
                UnlockError::WrongPassphrase
                | UnlockError::NoKeyslots
                | UnlockError::NoSuchKeyslot(_),
            ) => Ok(None),
            Err(error) => Err(Error::from(error).about(&self.place)),
        }
    }

    /// Every keyslot that this opens.
    pub(super) fn all_opened(
        &self,
        watch: &dyn Watch,
        passphrase: &Passphrase,
    ) -> Result<Vec<u32>, Error> {
        let container = self.read(watch)?;
        let mut opened = Vec::new();
        for keyslot in container.keyslots().iter().filter(|keyslot| keyslot.bound) {
            if container
                .unlock(passphrase, Which::Slot(keyslot.slot), watch.interrupt())
                .is_ok()
            {
                opened.push(keyslot.slot);
            }
        }
        Ok(opened)
    }

    /// The highest free keyslot. A keyslot that an admin adds gets the lowest number.
    pub(super) fn free_slot(&self, watch: &dyn Watch, besides: &[u32]) -> Result<u32, Error> {
        let container = self.read(watch)?;
        let used = container.keyslots();
        let total = match container.version() {
            Version::Luks1 => 8,
            Version::Luks2 => 32,
        };
        let free = (0..total).rev().find(|slot| {
            !besides.contains(slot) && !used.iter().any(|keyslot| keyslot.slot == *slot)
        });
        free.ok_or_else(|| Error::from(RotateError::NoKeyslot).about(&self.place))
    }

    /// Adds a keyslot for the new passphrase.
    pub(super) fn add(
        &self,
        watch: &dyn Watch,
        slot: u32,
        new: &Passphrase,
        existing: &Passphrase,
    ) -> Result<(), Error> {
        let mut container = match self.by(watch)? {
            By::Us(container) => container,
            By::Qemu(mut live) => {
                let milliseconds = self.options.cost.time.as_millis();
                let milliseconds = u32::try_from(milliseconds).unwrap_or(u32::MAX);
                return live
                    .add(slot, new, existing, milliseconds)
                    .map_err(|error| error.about(&self.place));
            }
        };
        let unlocked = self.unlock(watch, &container, existing)?;
        let key_size = unlocked.key().as_bytes().len();
        let kdf = self
            .options
            .cost
            .of_another_keyslot(&container, key_size, watch)?;
        let new = NewKeyslot::new(new, kdf).slot(slot);
        container
            .add_keyslot(&unlocked, &new, watch.interrupt())
            .map_err(|error| Error::from(error).about(&self.place))?;
        Ok(())
    }

    /// Removes a keyslot if it is in use, unless it is the last.
    pub(super) fn remove(&self, watch: &dyn Watch, slot: u32) -> Result<(), Error> {
        if !self
            .read(watch)?
            .keyslots()
            .iter()
            .any(|keyslot| keyslot.slot == slot)
        {
            return Ok(());
        }
        let about = |error: Error| error.about(&self.place);
        match self.by(watch)? {
            By::Us(mut container) => container
                .remove_keyslot(slot, false)
                .map_err(|error| about(error.into())),
            By::Qemu(mut live) => live.remove(slot).map_err(about),
        }
    }

    fn by(&self, watch: &dyn Watch) -> Result<By<'_>, Error> {
        let domain = match &*self.running {
            [] => {
                let limits = self.options.limits;
                let container = self.image.open_to_write(None, limits, watch)?;
                return Ok(By::Us(container.into()));
            }
            [domain] => domain,
            _ => return Err(RotateError::SeveralDomains(self.place.clone()).into()),
        };
        match Way::find(watch, domain, &self.place, || self.read(watch))? {
            Way::Asked(live) => Ok(By::Qemu(live)),
            Way::Beside(open) => Ok(By::Us(self.write_beside(&open, watch)?.into())),
        }
    }

    /// Opens the header for writing while a QEMU has the volume open. It uses or bypasses the page
    /// cache as QEMU does: if the two ways met in one page, one would undo what the other wrote.
    fn write_beside(&self, open: &OpenVolume, watch: &dyn Watch) -> Result<Container, Error> {
        if self.image.location.path().is_none() {
            let error = Error::from(RotateError::NotHere).about(&self.place);
            return Err(error.advise(Advice::ChangeBesideQemu));
        }
        let opened = self
            .image
            .open_beside(open.direct, self.options.limits, watch);
        opened.map_err(|error| {
            let kind = error.kind();
            let out_of_reach = kind == Kind::Permission || kind.is_of_storage();
            error.advise_if(out_of_reach, Advice::ChangeBesideQemu)
        })
    }

    fn unlock(
        &self,
        watch: &dyn Watch,
        container: &Container,
        passphrase: &Passphrase,
    ) -> Result<Unlocked, Error> {
        container
            .unlock(passphrase, Which::Any, watch.interrupt())
            .map_err(|error| Error::from(error).about(&self.place))
    }
}
