//! Volumes to serve: the place of each one, the rules for its clients, and the [`Export`] that is
//! made of it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use luksmith_formats::limits::Limits;

use super::open::Image;
use super::reencrypt::not_resumed;
use super::reencrypt::served::{Reencryptable, Stage};
use super::storage::{Storage, is_reencrypted};
use super::trust::kept::Task;
use super::{Advice, Error, Note, Watch};
use crate::Interrupt;
use crate::backend::file::OpenOptions;
use crate::container::{Container, Unlocked, Version, Which};
use crate::export::{Discard, Export};
use crate::interrupt::Heed;
use crate::location::Location;
use crate::reencrypt::{Idle, Online, Resume};
use crate::secret::Passphrase;
use crate::volume::Volume;

/// A volume to serve.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Wanted {
    /// The name of the export. The empty name is the default export.
    pub name: String,
    /// A text that clients can show to a person.
    pub description: String,
    /// The volume.
    pub image: Image,
    /// The keyslots that the passphrase is tried with.
    pub which: Which,
    /// Read compressed clusters of a qcow2 image, which are not encrypted. See
    /// [`Volume::with_compressed_plaintext`](crate::volume::Volume::with_compressed_plaintext).
    pub compressed_plaintext: bool,
    /// Clients can only read, and the image is opened for reading.
    pub read_only: bool,
    /// What a client's discard does.
    pub discard: Discard,
    /// The path of the socket for an emulator that uses the volume as the disk of a virtual machine
    /// (vhost-user), if there is to be one.
    pub vhost_user: Option<PathBuf>,
}

impl Wanted {
    /// The volume in `image` as the export `name`, with any keyslot, for reading and writing, with
    /// [`Discard::Deny`].
    #[must_use]
    pub fn new(name: impl Into<String>, image: Image) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            image,
            which: Which::Any,
            compressed_plaintext: false,
            read_only: false,
            discard: Discard::default(),
            vhost_user: None,
        }
    }

    fn export_of(&self, volume: Arc<Volume>) -> Export {
        Export::new(&self.name, volume)
            .with_description(&self.description)
            .with_read_only(self.read_only)
            .with_discard(self.discard)
    }

    /// Opens the image. The volume is still locked.
    ///
    /// # Errors
    /// Those of [`Image::open_data_to_read`] and [`Image::refuse_header_as_data`].
    pub fn open(self, limits: Limits, watch: &dyn Watch) -> Result<Locked, Error> {
        let (interrupt, opening) = watch.interrupt().while_heeded();
        let watch = &Opening { watch, interrupt };
        let (container, data) = if self.read_only {
            self.image
                .open_data_to_read(OpenOptions::new(), limits, watch)?
        } else {
            self.image.open_data_to_write(None, limits, watch)?
        };
        self.image.refuse_header_as_data(&container, &data)?;
        Ok(Locked {
            wanted: self,
            container,
            data,
            _opening: opening,
        })
    }
}

/// The watch while a volume is opened. The interrupt ends waits for its storage then. Once clients
/// use the volume, an interrupt only stops the server, and what they have written has to be
/// flushed.
pub(super) struct Opening<'a> {
    pub(super) watch: &'a dyn Watch,
    pub(super) interrupt: Interrupt,
}

impl Watch for Opening<'_> {
    fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    fn notes(&self, note: Note<'_>) {
        self.watch.notes(note);
    }
}

/// A volume that was opened to be served, and is still locked. While this exists, the interrupt of
/// the watch ends waits for the storage.
pub struct Locked {
    wanted: Wanted,
    container: Container,
    data: Storage,
    _opening: Heed,
}

impl Locked {
    /// The header.
    #[must_use]
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// Which volume it is, and the rules for its clients.
    #[must_use]
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Unlocks the volume with a passphrase. After
    /// [`Kind::WrongPassphrase`](super::Kind::WrongPassphrase) another one can be tried.
    ///
    /// # Errors
    /// Those of [`Container::unlock`] and [`export`](Self::export).
    pub fn unlock(&self, passphrase: &Passphrase, watch: &dyn Watch) -> Result<Export, Error> {
        let unlocked = self
            .container
            .unlock(passphrase, self.wanted.which, watch.interrupt())
            .map_err(|error| Error::from(error).about(&self.wanted.image.location))?;
        self.export(&unlocked)
    }

    /// The export of the volume, for a key that was unlocked with [`container`](Self::container).
    ///
    /// # Errors
    /// Those of [`Storage::volume`].
    pub fn export(&self, unlocked: &Unlocked) -> Result<Export, Error> {
        let volume = self.data.volume(&self.container, unlocked);
        let volume = volume.map_err(|error| error.about(&self.wanted.image.location))?;
        let volume = match self.wanted.compressed_plaintext {
            true => volume.with_compressed_plaintext(),
            false => volume,
        };
        Ok(self.wanted.export_of(Arc::new(volume)))
    }

    /// As [`export`](Self::export). If a reencryption is in progress, and the image was opened for
    /// writing, also returns what goes on with it beside clients. With `steered`, also returns
    /// what can begin one there, if the volume can be reencrypted in place.
    ///
    /// # Errors
    /// Those of [`export`](Self::export), and a reencryption that cannot be taken up.
    pub fn into_export(
        self,
        unlocked: &Unlocked,
        steered: bool,
    ) -> Result<(Export, Option<Reencryptable>), Error> {
        let (wanted, container) = (&self.wanted, &self.container);
        let is_pending = is_reencrypted(container);
        let is_raw = self.data.qcow2.is_none() && container.version() == Version::Luks2;
        if wanted.read_only || !(is_pending || steered && is_raw) {
            return Ok((self.export(unlocked)?, None));
        }
        let about = |error: Error| error.about(&wanted.image.location);
        let task = match is_pending {
            true => Task::Reencryption,
            false => Task::Control,
        };
        self.data.refuse_tags(container, task).map_err(about)?;
        let data = self.data.backend.clone();
        let (volume, stage) = if is_pending {
            let keys = container.reencryption_keys(unlocked, &Interrupt::new());
            let keys = keys.map_err(Error::from).map_err(about)?;
            self.data.fill_holes().map_err(about)?;
            let online = Online::resume(self.container, data, &keys, Resume::default());
            let online = online.map_err(not_resumed).map_err(about)?;
            (online.volume().clone(), Stage::Pending(Box::new(online)))
        } else {
            let idle = Idle::open(self.container, data, unlocked);
            let idle = idle.map_err(Error::from).map_err(about)?;
            (idle.volume().clone(), Stage::Idle(Box::new(idle)))
        };
        let export = wanted.export_of(volume);
        let Wanted { name, image, .. } = self.wanted;
        let reencryptable = Reencryptable::new(&name, image, stage, self.data);
        Ok((export, Some(reencryptable)))
    }
}

/// Refuses two exports of one image, unless both are read-only: neither would know of the writes
/// through the other.
///
/// # Errors
/// [`Kind::Parameters`](super::Kind::Parameters), with the names of both.
pub fn refuse_twice<'a>(all: impl IntoIterator<Item = &'a Wanted>) -> Result<(), Error> {
    let mut before: Vec<&Wanted> = Vec::new();
    for one in all {
        let twice = before.iter().find(|other| {
            is_same(&one.image.location, &other.image.location)
                && !(one.read_only && other.read_only)
        });
        if let Some(other) = twice {
            let message = format!(
                "{} is named twice, as the exports \"{}\" and \"{}\"",
                one.image.location, other.name, one.name
            );
            return Err(Error::parameters(message).advise(Advice::ShareExport));
        }
        before.push(one);
    }
    Ok(())
}

fn is_same(one: &Location, other: &Location) -> bool {
    let (Some(path), Some(other_path)) = (one.path_of_whole(), other.path_of_whole()) else {
        return one == other;
    };
    // Parts that overlap are refused when they are opened.
    if let (Some(part), Some(other_part)) = (one.part(), other.part())
        && part != other_part
    {
        return false;
    }
    let inode = |file: Metadata| (file.dev(), file.ino());
    let inode = |path: &Path| path.metadata().map(inode);
    matches!((inode(path), inode(other_path)), (Ok(one), Ok(other)) if one == other)
}
