//! One volume of a rotation: its header, and how its keyslots are changed.

use std::collections::BTreeSet;
use std::path::Path;

use uuid::Uuid;

use super::error::RotateError;
use super::live::{self, Live, Way};
use super::mark::Mark;
use super::options::RotateOptions;
use crate::backend::file::OpenOptions;
use crate::container::{Container, KeyslotMark, NewKeyslot, UnlockError, Unlocked, Version, Which};
use crate::libvirt::{Connection, Domain};
use crate::location::Location;
use crate::qemu::{At, OpenVolume};
use crate::secret::Passphrase;
use crate::task::libvirt::identity::Identity;
use crate::task::libvirt::inventory;
use crate::task::open::Image;
use crate::task::{Advice, Error, Kind, Watch};

/// A volume.
pub(super) struct Volume<'a> {
    /// Its place, as text.
    pub(super) place: String,
    identity: Identity,
    /// All names under which it was found.
    names: BTreeSet<String>,
    /// The other secrets that are for it.
    pub(super) others: Vec<Uuid>,
    image: Image,
    options: &'a RotateOptions<'a>,
    /// The domains that have it open, each with the name that its QEMU has for it.
    running: Vec<(Domain, String)>,
    /// Why its keyslots cannot be changed while they run.
    held: Option<&'static str>,
    /// Whether the librbd of the domain decrypts it.
    decrypted: bool,
}

/// How the keyslots are changed.
enum By<'a> {
    /// In the header, by this process.
    Us(Box<Container>),
    /// By the QEMU that has the volume open.
    Qemu(Live<'a>),
}

/// What proves that a keyslot is still the same, and not another one with the same number.
#[derive(Clone, Copy)]
pub(super) struct Proof<'a> {
    /// Its mark.
    pub(super) mark: Option<&'a Mark>,
    /// A passphrase that opens it.
    pub(super) passphrase: Option<&'a Passphrase>,
}

impl<'a> Volume<'a> {
    pub(super) fn new(
        connection: &Connection,
        (identity, known): (&Identity, &inventory::Volume),
        secret: &Uuid,
        options: &'a RotateOptions<'a>,
    ) -> Result<Self, Error> {
        let place = &known.place;
        if let Some(why) = known.beyond {
            let error = Error::from(RotateError::Beyond(why)).about(place);
            let elsewhere = why == inventory::ANOTHER_HOST;
            return Err(error.advise_if(elsewhere, Advice::RunOnItsHost));
        }
        let location = known.location.clone();
        let location = location.ok_or_else(|| RotateError::Elsewhere(place.to_owned()))?;
        let running = known.running.iter();
        let running = running.map(|(domain, name)| Ok((connection.domain(domain)?, name.clone())));
        let mut image = Image::new(location);
        image.remote = options.remote;
        image.format = known.format;
        image.trust.clone_from(&options.trust);
        let others = known.secrets.iter().chain(&known.also);
        Ok(Self {
            place: place.to_owned(),
            identity: identity.clone(),
            names: known.names.clone(),
            others: others.filter(|other| *other != secret).copied().collect(),
            image,
            options,
            running: running.collect::<Result<_, Error>>()?,
            held: known.held,
            decrypted: known.decrypted,
        })
    }

    /// Whether this place is this volume, in any spelling.
    pub(super) fn is_at(&self, place: &str) -> bool {
        let path = Path::new(place);
        self.names.contains(place)
            || (path.is_absolute() && Identity::of_path(path) == self.identity)
    }

    /// Waits for what an interrupted run has left in the QEMU that has the volume open, and removes
    /// it. Fails if anything prevents a change of the keyslots there.
    pub(super) fn settle(&self, watch: &dyn Watch) -> Result<(), Error> {
        if self.running.is_empty() {
            return Ok(());
        }
        self.by(watch).map(drop)
    }

    /// Fails if a block job or a migration of a domain that has it open is under way.
    pub(super) fn check_at_rest(&self, watch: &dyn Watch) -> Result<(), Error> {
        watch.check()?;
        let mut running = self.running.iter();
        running.try_for_each(|(domain, _)| live::check_at_rest(domain, &self.place))
    }

    /// Opens the header for reading, also while a QEMU has the volume open.
    pub(super) fn read(&self, watch: &dyn Watch) -> Result<Container, Error> {
        let file = OpenOptions::new().force_share(!self.running.is_empty());
        self.image.open_to_read(file, self.options.limits, watch)
    }

    /// The keyslot that this opens, and the mark of what it opened there. `None` if it opens none.
    pub(super) fn opens(
        &self,
        watch: &dyn Watch,
        passphrase: &Passphrase,
        which: Which,
    ) -> Result<Option<(u32, Mark)>, Error> {
        self.opens_in(watch, &self.read(watch)?, passphrase, which)
    }

    fn opens_in(
        &self,
        watch: &dyn Watch,
        container: &Container,
        passphrase: &Passphrase,
        which: Which,
    ) -> Result<Option<(u32, Mark)>, Error> {
        match container.unlock(passphrase, which, watch.interrupt()) {
            Ok(unlocked) if unlocked.is_volume_key() => {
                Ok(unlocked.slot().zip(unlocked.mark().map(Mark::from)))
            }
            Ok(_)
            | Err(
                UnlockError::WrongPassphrase
                | UnlockError::NoKeyslots
                | UnlockError::OnlyIgnored
                | UnlockError::NoSuchKeyslot(_),
            ) => Ok(None),
            Err(error) => Err(Error::from(error).about(&self.place)),
        }
    }

    /// Every keyslot that this opens, each with the mark of what it opened there. A derivation
    /// takes long, and another program may change the keyslot meanwhile: a mark that is read later
    /// may be that of another passphrase.
    pub(super) fn all_opened(
        &self,
        watch: &dyn Watch,
        passphrase: &Passphrase,
    ) -> Result<Vec<(u32, Mark)>, Error> {
        let container = self.read(watch)?;
        let mut opened = Vec::new();
        for keyslot in container.keyslots().iter().filter(|keyslot| keyslot.bound) {
            let which = Which::Slot(keyslot.slot);
            match container.unlock(passphrase, which, watch.interrupt()) {
                Ok(unlocked) => opened.extend(unlocked.slot().zip(unlocked.mark().map(Mark::from))),
                // A keyslot that cannot be tried stays.
                Err(_) => watch.check()?,
            }
        }
        Ok(opened)
    }

    /// The mark of a keyslot. `None` if it is not in use.
    pub(super) fn mark(&self, watch: &dyn Watch, slot: u32) -> Result<Option<KeyslotMark>, Error> {
        let mark = self.read(watch)?.keyslot_mark(slot);
        mark.map_err(|error| Error::from(error).about(&self.place))
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

    /// Adds a keyslot for the new passphrase. It gets this salt, unless QEMU makes it.
    pub(super) fn add(
        &self,
        watch: &dyn Watch,
        (slot, salt): (u32, Vec<u8>),
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
        let new = NewKeyslot::new(new, kdf).slot(slot).salt(salt);
        container
            .add_keyslot(&unlocked, &new, watch.interrupt())
            .map_err(|error| Error::from(error).about(&self.place))?;
        Ok(())
    }

    /// Removes a keyslot if it is in use, unless it is the last. Returns false, and changes
    /// nothing, if there is no proof that it is still the same keyslot.
    pub(super) fn remove(
        &self,
        watch: &dyn Watch,
        slot: u32,
        proof: Proof<'_>,
    ) -> Result<bool, Error> {
        if self.mark(watch, slot)?.is_none() {
            return Ok(true);
        }
        let about = |error: Error| error.about(&self.place);
        match self.by(watch)? {
            By::Us(mut container) => {
                // The change fails if the header is not the one that is looked at here.
                let proven = self.proven(watch, &container, slot, proof)?;
                if proven {
                    container
                        .remove_keyslot(slot, false)
                        .map_err(|error| about(error.into()))?;
                }
                Ok(proven)
            }
            By::Qemu(mut live) => {
                let container = self.read(watch)?;
                let passphrase = proof.passphrase;
                let opened_by = match passphrase {
                    Some(it) => self.opens_in(watch, &container, it, Which::Slot(slot))?,
                    None => None,
                };
                let passphrase = passphrase.filter(|_| opened_by.is_some());
                let proven = passphrase.is_some() || self.proven(watch, &container, slot, proof)?;
                if proven {
                    live.remove(slot, passphrase).map_err(about)?;
                }
                Ok(proven)
            }
        }
    }

    fn proven(
        &self,
        watch: &dyn Watch,
        container: &Container,
        slot: u32,
        proof: Proof<'_>,
    ) -> Result<bool, Error> {
        let found = container.keyslot_mark(slot);
        let found = found.map_err(|error| Error::from(error).about(&self.place))?;
        if let (Some(mark), Some(found)) = (proof.mark, found)
            && mark.is(&found)
        {
            return Ok(true);
        }
        let Some(passphrase) = proof.passphrase else {
            return Ok(false);
        };
        let opened = self.opens_in(watch, container, passphrase, Which::Slot(slot))?;
        Ok(opened.is_some())
    }

    fn by(&self, watch: &dyn Watch) -> Result<By<'_>, Error> {
        if let Some(why) = self.held.filter(|_| !self.running.is_empty()) {
            return Err(Error::from(RotateError::Held(why)).about(&self.place));
        }
        let (domain, name) = match &*self.running {
            [] => {
                let limits = self.options.limits;
                let container = self.image.open_to_write(None, limits, watch)?;
                return Ok(By::Us(container.into()));
            }
            [(domain, name)] => (domain, name),
            _ => return Err(RotateError::SeveralDomains(self.place.clone()).into()),
        };
        let at = match &self.image.location {
            Location::Rbd(uri) if self.decrypted => At::Decrypted(uri),
            Location::Rbd(uri) => At::Image(uri),
            _ => At::Path(name),
        };
        match Way::find(watch, domain, (name, at), || self.read(watch))? {
            Way::Asked(_) if self.image.trust.is_some() => {
                let why = "its QEMU changes the keyslots itself, and knows no pin";
                Err(Error::from(RotateError::Held(why)).about(&self.place))
            }
            Way::Asked(live) => Ok(By::Qemu(live)),
            Way::Beside(open) => Ok(By::Us(self.write_beside(&open, watch)?.into())),
        }
    }

    /// Opens the header for writing while a QEMU has the volume open. It uses or bypasses the page
    /// cache as QEMU does: if the two ways met in one page, one would undo what the other wrote.
    fn write_beside(&self, open: &OpenVolume, watch: &dyn Watch) -> Result<Container, Error> {
        let is_here = self.image.location.path().is_some();
        if !is_here && !matches!(self.image.location, Location::Rbd(_)) {
            let error = Error::from(RotateError::NotHere).about(&self.place);
            return Err(error.advise(Advice::ChangeBesideQemu));
        }
        let opened = self
            .image
            .open_beside(open.direct, self.options.limits, watch);
        opened.map_err(|error| {
            let kind = error.kind();
            let out_of_reach = kind == Kind::Permission || kind.is_of_storage();
            error.advise_if(is_here && out_of_reach, Advice::ChangeBesideQemu)
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
