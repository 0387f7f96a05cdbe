//! The new volume of a disk and the secret that opens it, and their removal.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::PoisonError;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown};
use uuid::Uuid;

use super::error::RekeyError;
use super::journal::{At, Journal, Side, Stage, new_name};
use super::look::{Looked, is_file, look};
use super::steps::Steps;
use super::uses::uses;
use crate::backend::file::OpenOptions;
use crate::libvirt::xml::{Usage, UsageType};
use crate::libvirt::{Connection, LibvirtError, Secret};
use crate::location::Location;
use crate::secret::Passphrase;
use crate::sys::folder::Folder;
use crate::task::destination::{Destination, Needed};
use crate::task::libvirt::identity::spelled_for;
use crate::task::libvirt::provision::{Place, Provision, ProvisionOptions};
use crate::task::new_volume::NewVolume;
use crate::task::open::Image;
use crate::task::{Error, Kind, Note};

impl Steps<'_> {
    /// Looks at the disk, and makes the new volume and its secret. Also returns the passphrase,
    /// which libvirt does not return again if the secret is private. If this fails, what was made
    /// is removed again.
    pub(super) fn make(&self) -> Result<(Journal, Passphrase), Error> {
        let looked = look(self.connection, self.unit, self.options, self.watch)?;
        let at = self.new_place(&looked)?;
        let side = |at, uuid| Side {
            at,
            uuid,
            secret: Uuid::new_v4(),
        };
        let mut journal = Journal {
            stage: Stage::Making,
            new: side(at, Uuid::new_v4().to_string()),
            old: Side {
                at: looked.at.clone(),
                uuid: looked.uuid.clone(),
                secret: looked.secret,
            },
            qcow2: looked.format == crate::task::open::ImageFormat::Qcow2,
            size: looked.size,
            private: looked.private,
            online: self.domain.is_active()?,
        };
        let passphrase = Passphrase::generate()?;
        self.place.write(&journal, self.watch)?;
        let made = self
            .provision(&looked, &journal, &passphrase)
            .and_then(|()| self.like_the_old(&journal))
            .and_then(|()| {
                journal.stage = Stage::Copying;
                self.place.write(&journal, self.watch)
            });
        if let Err(error) = made {
            self.take_back(&journal);
            return Err(error);
        }
        Ok((journal, passphrase))
    }

    /// Where the new volume is made: in the pool that the caller names or that has the old volume,
    /// or in the folder of the old file.
    fn new_place(&self, looked: &Looked) -> Result<At, Error> {
        let mut mark = [0; 4];
        crate::secret::random(&mut mark)?;
        let mark = u32::from_le_bytes(mark);
        let path = match &looked.at {
            At::Path(path) => Some(path.as_path()),
            _ => None,
        };
        let name = new_name(path.unwrap_or(Path::new(&self.unit.target)), mark);
        let pool = match (&self.options.pool, path) {
            (Some(pool), _) => Some(pool.clone()),
            (None, Some(path)) => pool_of(self.connection, path)?,
            (None, None) => None,
        };
        let at = match (pool, path) {
            (Some(pool), _) => {
                let there = self.connection.pool(&pool);
                let there = there.map_err(|error| Error::from(error).about(&pool))?;
                let free = there.info()?.available;
                if there.is_active()? && free < looked.size {
                    let message = format!(
                        "the pool {pool} has {free} bytes left, and the volume takes {}",
                        looked.size
                    );
                    return Err(Error::new(Kind::NoSpace, message));
                }
                At::Pool { pool, name }
            }
            (None, Some(path)) if is_file(path) => {
                let path = path.canonicalize();
                let path = path.map_err(|error| Error::new(Kind::Storage, error))?;
                let new = path.with_file_name(&name);
                Destination::look(&new)?.check_room(Needed::Ciphertext(looked.size))?;
                At::Path(new)
            }
            _ => return Err(RekeyError::NoPool(looked.at.to_string()).into()),
        };
        let there = match &at {
            At::Path(path) => path.symlink_metadata().is_ok(),
            At::Pool { pool, name } => self.connection.pool(pool)?.volume(name).is_ok(),
            At::Export(_) => true,
        };
        match there {
            true => Err(RekeyError::Exists(at.to_string()).into()),
            false => Ok(at),
        }
    }

    fn provision(
        &self,
        looked: &Looked,
        journal: &Journal,
        passphrase: &Passphrase,
    ) -> Result<(), Error> {
        let mut new = NewVolume::default();
        new.format = looked.format;
        new.cipher = looked.cipher;
        new.key_size = Some(looked.key_size);
        new.hash = looked.hash;
        new.uuid = Uuid::try_parse(&journal.new.uuid).ok();
        new.cost = self.options.cost.clone();
        new.limits = self.options.limits;
        let options = ProvisionOptions {
            volume: new,
            key: Some(passphrase),
            private: looked.private,
            secret: Some(journal.new.secret),
            ..ProvisionOptions::default()
        };
        let size = looked.size;
        let place = match &journal.new.at {
            At::Pool { pool, name } => Place::Pool {
                pool: pool.clone(),
                name: name.clone(),
                size,
            },
            other => Place::At {
                location: other.location(self.connection)?,
                size: Some(size),
            },
        };
        let provision = Provision::look(self.connection, place, options)?;
        if !provision.losses().is_empty() {
            return Err(RekeyError::Exists(journal.new.at.to_string()).into());
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        provision.make(self.watch).map(drop)
    }

    /// Gives a new file the owner and the mode of the old one, so that QEMU can open it also where
    /// libvirt does not change owners.
    fn like_the_old(&self, journal: &Journal) -> Result<(), Error> {
        let old = journal.old.at.location(self.connection)?;
        let new = journal.new.at.location(self.connection)?;
        let (Some(old), Some(new)) = (old.path(), new.path()) else {
            return Ok(());
        };
        let failed = |error| Error::io("look at", new, error);
        let (wanted, file) = (old.metadata().map_err(failed)?, open(new)?);
        let about = file.metadata().map_err(failed)?;
        if !wanted.is_file() || !about.is_file() {
            return Ok(());
        }
        let owner = (wanted.uid(), wanted.gid());
        if owner != (about.uid(), about.gid()) {
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            fchown(&file, Some(uid), Some(gid))
                .map_err(|error| Error::io("change the owner of", new, error.into()))?;
        }
        let mode = Mode::from_raw_mode(wanted.permissions().mode() & 0o777);
        fchmod(&file, mode).map_err(|error| Error::io("change the mode of", new, error.into()))
    }

    /// Removes what a failed run has made, and its journal. What cannot be removed stays in the
    /// journal, for another run.
    pub(super) fn take_back(&self, journal: &Journal) {
        if let Err(error) = self.discard(journal) {
            self.watch.notes(Note::NotTakenBack {
                what: &format!("the new volume {}", journal.new.at),
                error: &error.line(),
            });
        }
    }

    /// Removes the new volume, then its secret, and the journal, while no disk is the new volume.
    /// The secret stays if the volume stays, since only it opens the volume.
    pub(super) fn discard(&self, journal: &Journal) -> Result<(), Error> {
        self.abort(journal)?;
        let new = &journal.new;
        let location = self.made(&new.at)?;
        let secret = self.new_secret(journal, location.as_ref())?;
        if let Some(location) = location {
            let identity = new.at.identity(self.connection)?;
            if let Some(other) = uses(self.connection, &identity)?.first() {
                let (place, other) = (new.at.to_string(), other.to_string());
                return Err(RekeyError::NewUsed { place, other }.into());
            }
            self.remove_volume(journal, location)?;
        }
        if let Some(secret) = secret {
            secret.undefine()?;
        }
        self.place.clear()
    }

    /// Where the new volume is. `None` if there is no such file, or its pool does not have it.
    fn made(&self, at: &At) -> Result<Option<Location>, Error> {
        match at {
            At::Pool { pool, name } => {
                let found = self.connection.pool(pool)?.volume(name);
                match found {
                    Err(LibvirtError::NoVolume(_)) => return Ok(None),
                    found => drop(found?),
                }
            }
            At::Path(path) => match path.symlink_metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Error::io("look at", path, error)),
                Ok(_) => {}
            },
            At::Export(_) => {}
        }
        at.location(self.connection).map(Some)
    }

    /// The secret of the new volume, if it is there and still for this volume.
    fn new_secret(
        &self,
        journal: &Journal,
        location: Option<&Location>,
    ) -> Result<Option<Secret>, Error> {
        let secret = match self.connection.secret(&journal.new.secret) {
            Ok(secret) => secret,
            Err(LibvirtError::NoSecret(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let usage = secret.usage()?;
        let path = location.and_then(Location::path);
        let path = path.map(|path| spelled_for(self.connection, path));
        let meant = path.transpose()?.map(Usage::volume);
        // Its UUID was chosen for this volume. If that is gone, its name is all that is known.
        let is_meant = match (&usage, location) {
            (_, Some(_)) => usage == meant,
            (Some(usage), None) => {
                usage.kind == UsageType::Volume && journal.new.at.is_named(&usage.id)
            }
            (_, None) => false,
        };
        Ok(is_meant.then_some(secret))
    }

    /// Removes the new volume, if it has the UUID of the journal or no header yet.
    fn remove_volume(&self, journal: &Journal, location: Location) -> Result<(), Error> {
        let mut image = Image::new(location.clone());
        image.format = journal.format();
        let file = OpenOptions::new().force_share(true);
        let opened = image.open_to_read(file, self.options.limits, self.watch);
        let ours = match &opened {
            Ok(container) => container.uuid() == journal.new.uuid,
            // The header was not written yet. The name was chosen for this volume.
            Err(error) => error.kind() == Kind::Damaged,
        };
        drop(opened);
        if !ours {
            return Err(RekeyError::NotProven(journal.new.at.to_string()).into());
        }
        match (&journal.new.at, location.path()) {
            (At::Pool { pool, name }, _) => {
                let volume = self.connection.pool(pool)?.volume(name);
                match volume {
                    Ok(volume) => Ok(volume.delete()?),
                    Err(LibvirtError::NoVolume(_)) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            (_, Some(path)) => {
                let removed = Folder::of(path).and_then(|(folder, name)| folder.remove(&name));
                removed.map_err(|error| Error::io("remove", path, error))
            }
            _ => Ok(()),
        }
    }
}

/// The started pool that has a volume with this path.
fn pool_of(connection: &Connection, path: &Path) -> Result<Option<String>, Error> {
    let path = spelled_for(connection, path)?;
    match connection.volume_by_path(&path) {
        Ok(volume) => Ok(Some(volume.pool()?.name()?)),
        Err(LibvirtError::NoVolume(_) | LibvirtError::Unsupported(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let file = Folder::of(path).and_then(|(folder, name)| folder.open_file(&name, OFlags::RDONLY));
    file.map_err(|error| Error::io("open", path, error))
}
