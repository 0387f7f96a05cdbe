//! The proof that the new volume replaces the old one, and the end of the old volume and its
//! secret.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::error::RekeyError;
use super::journal::{Journal, Side, Stage};
use super::steps::{Now, Rekeyed, Steps};
use super::uses::uses;
use crate::backend::file::OpenOptions;
use crate::container::Which;
use crate::libvirt::{LibvirtError, UserKind, users};
use crate::location::Location;
use crate::task::libvirt::inventory::Inventory;
use crate::task::libvirt::rotate;
use crate::task::open::{Image, ImageFormat};
use crate::task::{Error, Kind, Note};

/// How long QEMU may take to close the old volume.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

impl Steps<'_> {
    /// Opens the new volume with the value of its secret.
    pub(super) fn prove(&self, journal: &Journal) -> Result<(), Error> {
        let wrong = || Error::from(RekeyError::NotProven(journal.new.at.to_string()));
        let image = self.image(journal, &journal.new)?;
        let file = OpenOptions::new().force_share(true);
        let (container, storage) =
            image.open_data_to_look(file, self.options.limits, self.watch)?;
        let size = storage.volume_size(&container)?;
        if container.uuid() != journal.new.uuid || size != journal.size {
            return Err(wrong());
        }
        let value = match self.connection.secret(&journal.new.secret)?.value() {
            Ok(value) => value,
            // `is_shown` says more about it.
            Err(LibvirtError::Private(_)) if journal.private => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let unlocked = container.unlock(&value, Which::Any, self.watch.interrupt())?;
        match unlocked.is_volume_key() {
            true => Ok(()),
            false => Err(wrong()),
        }
    }

    fn image(&self, journal: &Journal, side: &Side) -> Result<Image, Error> {
        let mut image = Image::new(side.at.location(self.connection)?);
        (image.format, image.remote) = (journal.format(), self.options.remote);
        Ok(image)
    }

    /// Whether a private secret opens the new volume: QEMU has opened it, when it copied the disk
    /// or since then. libvirt gives the value of such a secret to no other program.
    fn is_shown(&self, journal: &Journal) -> Result<bool, Error> {
        let has_it_open = self.domain.is_active()? && self.now_in(journal, false)?.0 == Now::New;
        Ok(journal.online || has_it_open)
    }

    /// Proves the new volume, erases the old one and removes its secret. `stored` says that this
    /// run has given the passphrase, with which it opened the new volume, to libvirt.
    pub(super) fn finish(&self, mut journal: Journal, stored: bool) -> Result<Rekeyed, Error> {
        self.prove(&journal)?;
        let location = journal.new.at.location(self.connection)?;
        let mut done = Rekeyed {
            domain: self.unit.domain_name.clone(),
            target: self.unit.target.clone(),
            online: journal.online,
            new: location.to_string(),
            secret: journal.new.secret,
            old: journal.old.at.to_string(),
            old_secret: journal.old.secret,
            erased: false,
            secret_removed: false,
        };
        if !self.options.keep_old {
            let old = journal.old.at.identity(self.connection)?;
            if let Some(other) = uses(self.connection, &old)?.first() {
                let (place, other) = (journal.old.at.to_string(), other.to_string());
                return Err(RekeyError::AlsoUsed { place, other }.into());
            }
            if journal.private && !stored && !self.is_shown(&journal)? {
                let (place, secret) = (journal.new.at.to_string(), journal.new.secret);
                return Err(RekeyError::NotShown { place, secret }.into());
            }
            journal.stage = Stage::Erasing;
            self.place.write(&journal, self.watch)?;
            self.erase(&journal)?;
            done.erased = true;
            done.secret_removed = self.remove_old_secret(&journal)?;
        }
        self.place.clear()?;
        Ok(done)
    }

    /// Erases the header of the old volume.
    fn erase(&self, journal: &Journal) -> Result<(), Error> {
        let image = self.image(journal, &journal.old)?;
        let begun = Instant::now();
        let mut container = loop {
            match image.open_to_write(None, self.options.limits, self.watch) {
                Err(error) if error.kind() == Kind::Busy && begun.elapsed() < PATIENCE => {
                    self.watch.check()?;
                    sleep(PAUSE);
                }
                opened => break opened?,
            }
        };
        if container.uuid() != journal.old.uuid {
            return Err(RekeyError::OtherVolume(journal.old.at.to_string()).into());
        }
        container
            .erase()
            .map_err(|error| Error::from(error).about(&journal.old.at))
    }

    /// Whether a file or a device is a LUKS volume without keyslots, as the old volume is now.
    fn is_erased(&self, path: &str) -> bool {
        [ImageFormat::Raw, ImageFormat::Qcow2]
            .into_iter()
            .any(|format| {
                let mut image = Image::new(Location::Path(path.into()));
                image.format = format;
                let file = OpenOptions::new().force_share(true);
                let opened = image.open_to_read(file, self.options.limits, self.watch);
                opened.is_ok_and(|container| container.keyslots().is_empty())
            })
    }

    /// Removes the secret of the old volume, unless anything else needs it.
    fn remove_old_secret(&self, journal: &Journal) -> Result<bool, Error> {
        let secret = match self.connection.secret(&journal.old.secret) {
            Ok(secret) => secret,
            Err(LibvirtError::NoSecret(_)) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let stays = |why: &str| {
            let secret = &journal.old.secret;
            self.watch.notes(Note::SecretStays { secret, why });
            Ok(false)
        };
        if rotate::is_unfinished(&self.options.journals, &journal.old.secret) {
            return stays("a rotation of it is not finished");
        }
        let users = users(self.connection)?;
        if let Some((what, _)) = users.unread.first() {
            return stays(&format!("{what} cannot be read, and may use it"));
        }
        let usage = secret.usage()?;
        for user in users.of(&journal.old.secret, usage.as_ref()) {
            let erased = match user {
                UserKind::Volume { path, .. } => self.is_erased(path),
                _ => false,
            };
            if !erased {
                return stays(&format!("{user} uses it"));
            }
        }
        let value = match secret.value() {
            Ok(value) => Some(value),
            Err(LibvirtError::Private(_) | LibvirtError::NoValue(_)) => None,
            Err(error) => return Err(error.into()),
        };
        for stranger in Inventory::of(self.connection)?.strangers() {
            let (limits, remote) = (self.options.limits, self.options.remote);
            match stranger.opens(value.as_ref(), limits, remote, self.watch) {
                Ok(false) => {}
                Ok(true) => return stays(&format!("it may open {}", stranger.place)),
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                Err(error) => {
                    return stays(&format!(
                        "{} cannot be tried: {}",
                        stranger.place,
                        error.line()
                    ));
                }
            }
        }
        secret.undefine()?;
        Ok(true)
    }
}
