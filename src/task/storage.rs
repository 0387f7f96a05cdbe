//! Opens the storage at a location, and finds out its sort.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use luksmith_formats::limits::Limits;
use luksmith_formats::nbd::uri::Uri;

use super::destination::Destination;
use super::trust::kept::{Kept, Task};
use super::{Advice, Error, Kind, size};
use crate::Interrupt;
use crate::backend::file::{FileBackend, OpenOptions};
use crate::backend::{Backend, IoError};
use crate::container::{Container, OpenError, Remains, Undo, UndoFile, Unlocked, VolumeError};
use crate::layout::{ImageError, Qcow2, Qcow2Header};
use crate::location::Location;
use crate::reencrypt::open_to_read;
use crate::sectors::{Cipher, Sectors};
use crate::trust::tags::Tagged;
use crate::volume::Volume;

/// The first bytes of a LUKS volume of either version.
pub(super) const LUKS_MAGIC: &[u8] = b"LUKS\xba\xbe";

/// How a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remote {
    /// How long the server may be silent or unreachable before a request fails. Until then a broken
    /// connection is restored.
    pub timeout: Duration,
    /// The number of connections to the server, if it allows several for one client. By default 4
    /// to an NBD server, and 16 to an object store.
    pub connections: Option<usize>,
    /// Whether the server is asked which parts of the export hold data.
    pub extents: bool,
    /// Whether a new volume may be made in an object store that overwrites objects. It is for one
    /// writer at a time, which nothing enforces.
    pub unfenced: bool,
}

impl Default for Remote {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            connections: None,
            extents: false,
            unfenced: false,
        }
    }
}

#[cfg(feature = "nbd")]
impl Remote {
    /// The options of a connection.
    pub(super) fn connect(self, write: bool) -> crate::backend::nbd::ConnectOptions {
        crate::backend::nbd::ConnectOptions::new()
            .write(write)
            .timeout(self.timeout)
            .connections(self.connections.unwrap_or(4))
            .extents(self.extents)
    }
}

impl Remote {
    /// The same, with or without questions which parts of the export hold data.
    #[must_use]
    pub fn extents(self, extents: bool) -> Self {
        Self { extents, ..self }
    }
}

/// An opened storage, with what a task has to know about it apart from its bytes.
#[derive(Clone)]
#[non_exhaustive]
pub struct Storage {
    /// Its bytes.
    pub backend: Arc<dyn Backend>,
    /// What sort of storage it is.
    pub nature: Nature,
    /// The image that it holds, if it was opened as one, with its data.
    pub qcow2: Option<Arc<Qcow2>>,
    /// The LUKS header of the image that it holds, if it was opened as one.
    pub qcow2_header: Option<Arc<Qcow2Header>>,
    /// The opened file or device, if it is one or a part of one.
    pub(super) file: Option<Arc<FileBackend>>,
    /// Where it begins, if it is a part of another storage.
    pub(super) offset: Option<u64>,
    /// The partitions of the whole that share bytes with it, if it is a range of bytes.
    pub(super) crossed: Vec<u32>,
    /// What is known of it, if it is an image in Ceph or a part of one.
    pub(super) ceph: Option<InCeph>,
    /// Where this host keeps the tags of its data, if they are used.
    pub(super) kept: Option<Arc<Kept>>,
    /// Its snapshots, if it is opened for writing and can have some.
    pub snapshots: Option<Arc<dyn Snapshots>>,
}

/// The snapshots of a storage that is open.
pub trait Snapshots: Send + Sync {
    /// Makes a snapshot of what was written until now.
    ///
    /// # Errors
    /// A name that is taken, or cannot be one, and what the storage answers.
    fn make(&self, name: &str) -> Result<(), Error>;

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// A name of no snapshot, and what the storage answers.
    fn delete(&self, name: &str) -> Result<(), Error>;
}

/// What a task has to know about an opened image in Ceph, apart from its bytes.
#[derive(Clone, Debug)]
pub(super) struct InCeph {
    /// The stripe period in bytes, at a multiple of which librbd expects the data of a volume.
    pub(super) period: u64,
    /// The snapshot of which it is a clone, if it is one.
    pub(super) parent: Option<String>,
}

/// A sort of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// A regular file, which can grow.
    File,
    /// A block device, whose size is fixed.
    BlockDevice,
    /// An export on a server, whose size is fixed. Each call waits for the server.
    Export,
    /// An image in Ceph, which can grow. Each call waits for the cluster.
    Rbd,
    /// A volume in an object store, which can grow. Reads wait for the store.
    Objects,
}

impl Storage {
    /// A storage whose bytes are the volume itself.
    #[must_use]
    pub fn raw(backend: Arc<dyn Backend>, nature: Nature) -> Self {
        Self {
            backend,
            nature,
            qcow2: None,
            qcow2_header: None,
            file: None,
            offset: None,
            crossed: Vec::new(),
            ceph: None,
            kept: None,
            snapshots: None,
        }
    }

    /// An opened file or device, whose bytes are the volume itself.
    #[must_use]
    pub fn of_file(file: Arc<FileBackend>) -> Self {
        let nature = match file.is_device() {
            true => Nature::BlockDevice,
            false => Nature::File,
        };
        Self {
            file: Some(file.clone()),
            ..Self::raw(file, nature)
        }
    }

    #[cfg(feature = "nbd")]
    pub(super) fn connect(
        uri: &Uri,
        remote: Remote,
        write: bool,
        interrupt: &Interrupt,
    ) -> Result<Self, Error> {
        use crate::backend::nbd::NbdBackend;
        let options = remote.connect(write);
        let backend = Arc::new(NbdBackend::connect_interruptible(
            uri,
            options,
            interrupt.clone(),
        )?);
        Ok(Self::raw(backend, Nature::Export))
    }

    #[cfg(not(feature = "nbd"))]
    pub(super) fn connect(uri: &Uri, _: Remote, _: bool, _: &Interrupt) -> Result<Self, Error> {
        let missing = crate::MissingFeature::new("a volume on an NBD server", "nbd");
        Err(Error::new(Kind::Unsupported, missing).about(uri))
    }

    /// Opens a file or a device.
    ///
    /// # Errors
    /// What the system reports, and [`Kind::Busy`] if another program has it open.
    pub fn open_path(path: &Path, options: OpenOptions) -> Result<Self, Error> {
        open_file(path, options).map(Self::of_file)
    }

    /// Opens what was found at a destination, for writing.
    ///
    /// # Errors
    /// As [`Storage::open_path`] and [`Destination::open`].
    pub fn open_found(destination: &Destination) -> Result<Self, Error> {
        Self::file_found(destination).map(Self::of_file)
    }

    /// Opens the file or device that was found at a destination, for writing.
    pub(super) fn file_found(destination: &Destination) -> Result<Arc<FileBackend>, Error> {
        let (file, path) = (destination.open()?, destination.path());
        let file = FileBackend::from_file(file, path, OpenOptions::new().write(true))?;
        // If the file was replaced before it was locked, a change of the old one would be lost.
        destination
            .check_unchanged()
            .map_err(|error| Error::io("open", path, error))?;
        Ok(Arc::new(file))
    }

    /// The undo record of the header in this storage: where the caller says, or beside the file
    /// that was opened.
    #[must_use]
    pub fn undo(&self, named: Option<&Path>) -> Undo {
        match (named, &self.file) {
            (Some(named), _) => UndoFile::at(named.to_owned()).into(),
            (None, Some(file)) => Undo::beside_part(file, self.offset.unwrap_or(0)),
            (None, None) => Undo::NotLookedFor,
        }
    }

    /// Reserves the space of all holes of a file that will be written completely, so that this does
    /// not fail in its middle for lack of space. Where the system cannot do so, nothing happens.
    ///
    /// # Errors
    /// [`Kind::NoSpace`] if there is not enough space.
    pub(super) fn fill_holes(&self) -> Result<(), Error> {
        let Some(file) = self.file.as_ref().filter(|file| !file.is_device()) else {
            return Ok(());
        };
        let about = file.about();
        if about.is_ok_and(|about| about.blocks().saturating_mul(512) >= about.len()) {
            return Ok(());
        }
        match file.preallocate() {
            Ok(()) | Err(IoError::Unsupported(_)) => Ok(()),
            Err(error) => {
                let missing = file.about().map_or(0, |about| {
                    let held = about.blocks().saturating_mul(512);
                    about.len().saturating_sub(held)
                });
                let what = format!("its holes need {} more", size::human(missing));
                Err(Error::from(error).about(what))
            }
        }
    }

    /// How many names its file has. 1 for a device or an export, and if the system does not say.
    #[must_use]
    pub fn names(&self) -> u64 {
        match &self.file {
            Some(file) if !file.is_device() => file.about().map_or(1, |about| about.nlink()),
            _ => 1,
        }
    }

    /// The same storage, opened as a qcow2 image. `location` is for messages.
    ///
    /// # Errors
    /// An image that is malformed, or has what this library does not open.
    pub fn into_qcow2(self, location: &Location) -> Result<Self, Error> {
        let image = Qcow2::open(self.backend.clone());
        let image = image.map_err(|error| self.image_error(error, location))?;
        Ok(self.with_qcow2(image))
    }

    /// The same storage, opened as a qcow2 image for work on its LUKS header only. The data may be
    /// in other files, which are not opened. `location` is for messages.
    ///
    /// # Errors
    /// An image whose own header is malformed, and one that is not encrypted with LUKS.
    pub fn into_qcow2_header(self, location: &Location) -> Result<Self, Error> {
        let header = Qcow2Header::open(self.backend.clone());
        let header = header.map_err(|error| self.image_error(error, location))?;
        Ok(Self {
            qcow2_header: Some(Arc::new(header)),
            ..self
        })
    }

    /// The same storage, with the image that was opened or made in it.
    pub(super) fn with_qcow2(self, image: Qcow2) -> Self {
        Self {
            qcow2_header: Some(Arc::new(image.header())),
            qcow2: Some(Arc::new(image)),
            ..self
        }
    }

    fn image_error(&self, error: ImageError, location: &Location) -> Error {
        let luks = matches!(error, ImageError::NotQcow2) && self.begins_with(LUKS_MAGIC);
        let error = Error::from(error).about(location);
        error.advise_if(luks, Advice::FormatRaw)
    }

    /// Whether the storage begins with `magic`. This is only for advice, never to choose a format.
    pub(super) fn begins_with(&self, magic: &[u8]) -> bool {
        begins_with(&*self.backend, magic)
    }

    /// The storage of the LUKS header, if the header is not detached.
    #[must_use]
    pub fn header(&self) -> Arc<dyn Backend> {
        match &self.qcow2_header {
            Some(header) => header.storage(),
            None => self.backend.clone(),
        }
    }

    /// Refuses a storage that contains the rest of a header whose start is overwritten, for a task
    /// that would take it for data. `location` is for messages.
    ///
    /// # Errors
    /// [`OpenError::Remains`], and what the storage reports.
    pub fn refuse_remains(&self, location: &Location, limits: &Limits) -> Result<(), Error> {
        match Remains::find(&*self.backend, limits)? {
            None => Ok(()),
            Some(remains) => Err(Error::from(OpenError::Remains(remains)).about(location)),
        }
    }

    /// The storage of the volume's data, compared with the tags that this host keeps of it. `None`
    /// if it keeps none, or is not asked to use them.
    ///
    /// # Errors
    /// As [`Tagged::open`], and another process that uses the tags.
    pub fn tagged(
        &self,
        container: &Container,
        unlocked: &Unlocked,
    ) -> Result<Option<Arc<Tagged>>, Error> {
        match &self.kept {
            Some(kept) => kept.tagged(&self.backend, container, unlocked),
            None => Ok(None),
        }
    }

    /// Fails if the volume has tags, for a task that does not keep them up.
    pub(super) fn refuse_tags(&self, container: &Container, task: Task) -> Result<(), Error> {
        let kept = self.kept.as_ref();
        kept.map_or(Ok(()), |kept| kept.refuse(container, task))
    }

    /// The plaintext of the volume in this storage, which is compared with its tags if this host
    /// keeps some. While a reencryption of it is in progress, the
    /// storage has to be open for reading only, and the reencryption does not go on.
    ///
    /// # Errors
    /// As [`Container::volume`], [`Container::reencryption_keys`], [`open_to_read`] and
    /// [`tagged`](Self::tagged).
    pub fn volume(&self, container: &Container, unlocked: &Unlocked) -> Result<Volume, Error> {
        if let Some(tagged) = self.tagged(container, unlocked)? {
            return Ok(container.volume(tagged, unlocked)?);
        }
        let storage = self.backend.clone();
        match &self.qcow2 {
            Some(image) => Ok(container.volume_in(image.clone(), unlocked)?),
            None if storage.geometry().read_only && is_reencrypted(container) => {
                let keys = container.reencryption_keys(unlocked, &Interrupt::new())?;
                Ok(open_to_read(container, storage, &keys)?)
            }
            None => Ok(container.volume(storage, unlocked)?),
        }
    }

    /// The size of the volume in this storage, in bytes.
    ///
    /// # Errors
    /// A header that describes no volume which fits the storage.
    pub fn volume_size(&self, container: &Container) -> Result<u64, VolumeError> {
        match (&self.qcow2, &self.qcow2_header) {
            (Some(image), _) => Ok(image.size()),
            (None, Some(header)) => Ok(header.size()),
            (None, None) => {
                let size = self.backend.geometry().size;
                match container.reencryption() {
                    Ok(Some(found)) => Ok(found
                        .fixed_size()
                        .unwrap_or_else(|| size.saturating_sub(found.previous.offset()))),
                    _ => container.data_size_on(&*self.backend),
                }
            }
        }
    }

    /// Whether the size of the storage is fixed.
    #[must_use]
    pub fn has_fixed_size(&self) -> bool {
        !matches!(self.nature, Nature::File | Nature::Rbd | Nature::Objects)
            || self.offset.is_some()
    }

    /// How many chunks of a bulk copy should be in flight at once.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self.nature {
            Nature::File | Nature::BlockDevice => 1,
            Nature::Export | Nature::Rbd | Nature::Objects => 16,
        }
    }
}

/// Whether a reencryption of a volume is in progress, which is understood here.
pub(super) fn is_reencrypted(container: &Container) -> bool {
    matches!(container.reencryption(), Ok(Some(_)))
}

/// Whether a storage begins with `magic`. This is only for advice, never to choose a format.
pub(super) fn begins_with(storage: &dyn Backend, magic: &[u8]) -> bool {
    let unit = storage.geometry().block_size.max(512) as usize;
    let mut start = Sectors::<Cipher>::with_len(unit);
    storage.read_at(0, &mut start).is_ok() && start.as_slice().starts_with(magic)
}

/// The error for a location that only an emulator opens, or that has no plain data.
#[must_use]
pub fn not_opened(location: &Location) -> Error {
    let what = match location {
        Location::Rbd(_) => {
            "plain data is not kept in ceph: `rbd export` and `rbd import` read and write it"
        }
        Location::Objects(_) => "plain data is not kept in an object store",
        Location::Server(server) if server.is_web() => {
            "plain data is not read from a web server, nor written to it"
        }
        _ => "luksmith does not open that",
    };
    Error::new(Kind::Unsupported, what).about(location)
}

/// Opens a file or a device, for operations that only these have.
///
/// # Errors
/// As [`Storage::open_path`].
pub fn open_file(path: &Path, options: OpenOptions) -> Result<Arc<FileBackend>, Error> {
    FileBackend::open(path, options)
        .map(Arc::new)
        .map_err(|error| {
            let reads = !options.writes();
            let error = Error::from(error);
            let busy = error.kind() == Kind::Busy;
            error.advise_if(reads && busy, Advice::ForceShare)
        })
}
