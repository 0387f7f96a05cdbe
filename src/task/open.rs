//! Opens the container at a location, and its data.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use luksmith_formats::image::qcow2;
use luksmith_formats::limits::Limits;

use super::destination::{Destination, Needed};
use super::storage::{Remote, Storage, is_reencrypted};
use super::trust::kept::Kept;
use super::trust::place;
use super::{Advice, Error, Kind, Note, Silent, Watch};
use crate::backend::Backend;
use crate::backend::file::OpenOptions;
use crate::container::{self, Container, Health, OpenError, Undo, Version, VolumeError};
use crate::location::Location;
use crate::trust::tags::TagsOptions;
use crate::trust::{Pinned, Trust, TrustDir};

/// The format in which a file, a device or an export holds a volume. It is always stated, never
/// guessed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageFormat {
    /// The volume itself, header first.
    #[default]
    Raw,
    /// An encrypted qcow2 image, with LUKS1 inside.
    Qcow2,
}

impl ImageFormat {
    /// The name that QEMU and libvirt have for it, too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// Which volume: where it is stored, and in which format.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Image {
    /// The encrypted volume.
    pub location: Location,
    /// Where the header is stored, if it is detached.
    pub header: Option<Location>,
    /// The format of what is at the location.
    pub format: ImageFormat,
    /// How a server is reached.
    pub remote: Remote,
    /// Where the pin of the volume is, with which the header is compared.
    pub trust: Option<TrustDir>,
    /// How tags of the volume's data are used that are beside the pin.
    pub tags: TagsOptions,
}

impl Image {
    /// A raw volume, with its header inside.
    #[must_use]
    pub fn new(location: Location) -> Self {
        Self {
            location,
            header: None,
            format: ImageFormat::Raw,
            remote: Remote::default(),
            trust: None,
            tags: TagsOptions::default(),
        }
    }

    /// Whether the header is compared with a pin.
    #[must_use]
    pub fn trust(&self) -> Trust {
        match &self.trust {
            None => Trust::NotLookedFor,
            Some(dir) => {
                let place = place(&self.location, self.header.as_ref());
                Trust::Pinned(Pinned::new(Arc::new(dir.clone()), place))
            }
        }
    }

    /// The same volume, whose header is compared with no pin.
    #[must_use]
    pub fn without_trust(mut self) -> Self {
        self.trust = None;
        self
    }

    /// Where the header is stored.
    #[must_use]
    pub fn header_location(&self) -> &Location {
        self.header.as_ref().unwrap_or(&self.location)
    }

    /// Opens the header for reading. `file` says how a file is opened, without writing.
    ///
    /// # Errors
    /// What the storage reports, and what is wrong with the header.
    pub fn open_to_read(
        &self,
        file: OpenOptions,
        limits: Limits,
        watch: &dyn Watch,
    ) -> Result<Container, Error> {
        let storage = self.header_storage(file, watch)?;
        let undo = storage.undo(None);
        self.open(storage, self.options(undo, limits), watch)
    }

    /// Opens the header for a command that only shows what it holds, also while another program
    /// writes to the image. Beside a QEMU the header is locked. Beside another luksmith, which may
    /// serve the image, it is read until it stays the same.
    ///
    /// # Errors
    /// As [`Image::open_to_read`]; [`Kind::Busy`] if the header is being changed.
    pub fn open_to_look(
        &self,
        file: OpenOptions,
        limits: Limits,
        watch: &dyn Watch,
    ) -> Result<Container, Error> {
        let open = |file, watch: &dyn Watch| Ok((self.open_to_read(file, limits, watch)?, ()));
        Ok(look(file, watch, open)?.0)
    }

    /// As [`Image::open_to_look`], with the storage of the data, whose content is not read: a qcow2
    /// image is opened for its header only.
    ///
    /// # Errors
    /// As [`Image::open_to_look`].
    pub fn open_data_to_look(
        &self,
        file: OpenOptions,
        limits: Limits,
        watch: &dyn Watch,
    ) -> Result<(Container, Storage), Error> {
        let open = |file, watch: &dyn Watch| {
            let header = self.header_storage(file, watch)?;
            self.open_beside_header(header, file, None, limits, watch)
        };
        look(file, watch, open)
    }

    /// Opens the header and the data for reading.
    ///
    /// # Errors
    /// As [`Image::open_to_read`].
    pub fn open_data_to_read(
        &self,
        file: OpenOptions,
        limits: Limits,
        watch: &dyn Watch,
    ) -> Result<(Container, Storage), Error> {
        self.open_both(file, None, limits, watch)
    }

    /// Opens the header for writing; no other program may have it open. `undo` names the file of
    /// the undo record, which by default is beside the file that holds the header.
    ///
    /// # Errors
    /// As [`Image::open_to_read`].
    pub fn open_to_write(
        &self,
        undo: Option<&Path>,
        limits: Limits,
        watch: &dyn Watch,
    ) -> Result<Container, Error> {
        let storage = self.header_storage_to_write(watch)?;
        check_undo(undo)?;
        let undo = storage.undo(undo);
        self.open(storage, self.options(undo, limits), watch)
    }

    /// Opens the header and the data for writing.
    ///
    /// # Errors
    /// As [`Image::open_to_read`]; [`Kind::Unsupported`] if volumes with this cipher are only read.
    pub fn open_data_to_write(
        &self,
        undo: Option<&Path>,
        limits: Limits,
        watch: &dyn Watch,
    ) -> Result<(Container, Storage), Error> {
        check_undo(undo)?;
        self.open_both(OpenOptions::new().write(true), undo, limits, watch)
    }

    /// Opens the header for writing beside the QEMU that has the volume open. `direct` bypasses the
    /// page cache, as that QEMU does.
    ///
    /// # Errors
    /// As [`Image::open_to_read`].
    pub fn open_beside(
        &self,
        direct: bool,
        limits: Limits,
        watch: &dyn Watch,
    ) -> Result<Container, Error> {
        let file = OpenOptions::new().write(true).beside(true).direct(direct);
        let storage = self.header_storage(file, watch)?;
        let options = self.options(storage.undo(None), limits).beside(true);
        self.open(storage, options, watch)
    }

    /// The storage of the header, for tasks that do not open it as a container.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn header_storage_to_write(&self, watch: &dyn Watch) -> Result<Storage, Error> {
        self.header_storage(OpenOptions::new().write(true), watch)
    }

    /// Refuses a detached header of an image that has its header inside.
    ///
    /// # Errors
    /// [`Kind::Parameters`].
    pub fn check_header(&self) -> Result<(), Error> {
        if self.format == ImageFormat::Qcow2 && self.header.is_some() {
            let message = "a qcow2 image has its header inside";
            return Err(Error::parameters(message).advise(Advice::OnlyRaw(&["header"])));
        }
        Ok(())
    }

    /// Refuses a detached header that was given as the data.
    ///
    /// # Errors
    /// [`VolumeError::Detached`].
    pub fn refuse_header_as_data(
        &self,
        container: &Container,
        data: &Storage,
    ) -> Result<(), Error> {
        if data.qcow2_header.is_some() {
            return Ok(());
        }
        match container.data_segment_on(&*data.backend) {
            Err(error @ VolumeError::Detached) => Err(Error::from(error).about(&self.location)),
            // Other failures are reported where the volume is made.
            _ => Ok(()),
        }
    }

    /// The size of the plaintext in bytes, if it is known: not for a detached header without its
    /// data.
    #[must_use]
    pub fn data_size(&self, container: &Container, data: &Storage) -> Option<u64> {
        let elsewhere = self.header.is_none() && container.header().data_offset() == 0;
        if elsewhere {
            None
        } else {
            data.volume_size(container).ok()
        }
    }

    fn open_both(
        &self,
        file: OpenOptions,
        undo: Option<&Path>,
        limits: Limits,
        watch: &dyn Watch,
    ) -> Result<(Container, Storage), Error> {
        let header = self.storage_with_header(file, watch)?;
        let header = match self.format {
            ImageFormat::Raw => header,
            ImageFormat::Qcow2 => header.into_qcow2(&self.location)?,
        };
        self.open_beside_header(header, file, undo, limits, watch)
    }

    /// Opens the header in an opened storage, and the data.
    fn open_beside_header(
        &self,
        header: Storage,
        file: OpenOptions,
        undo: Option<&Path>,
        limits: Limits,
        watch: &dyn Watch,
    ) -> Result<(Container, Storage), Error> {
        let options = self.options(header.undo(undo), limits);
        let data = match self.header {
            Some(_) => {
                let data = Storage::open(&self.location, self.remote, file, watch.interrupt())?;
                note_no_flush(&data, &self.location, file, watch);
                data
            }
            None => header.clone(),
        };
        let data = Storage {
            kept: self.trust.clone().map(|dir| {
                let options = self.tags.clone();
                Arc::new(Kept { dir, options })
            }),
            ..data
        };
        let container = self.open(header, options, watch)?;
        if let Ok(segment) = container.data_segment()
            && file.writes()
        {
            segment.cipher.check_writable().map_err(|error| {
                let error = Error::new(Kind::Unsupported, error);
                error
                    .about(&self.location)
                    .advise(Advice::CopyFromWeakCipher)
            })?;
        }
        if container.authenticated_segment().is_some() && file.writes() {
            let message = "volumes with authenticated encryption (dm-integrity) are only read";
            let error = Error::new(Kind::Unsupported, message);
            return Err(error
                .about(&self.location)
                .advise(Advice::ReadAuthenticated));
        }
        self.note_end(&container, &data, watch);
        Ok((container, data))
    }

    /// Tells what is not whole at the end of the data.
    fn note_end(&self, container: &Container, data: &Storage, watch: &dyn Watch) {
        let location = &self.location;
        let size = data.backend.geometry().size;
        let Ok(segment) = container.data_segment() else {
            return;
        };
        let elsewhere = self.header.is_none() && segment.offset == 0;
        if data.qcow2_header.is_some() || elsewhere {
            return;
        }
        if segment.fixed_size.is_none() && size == segment.offset {
            let offset = segment.offset;
            watch.notes(Note::NoData { location, offset });
        }
        let bytes = segment.left_out(size);
        if bytes != 0 {
            watch.notes(Note::LeftOut {
                location,
                bytes,
                sector_size: segment.sector_size,
            });
        }
    }

    /// The storage of the header, for work on the header only. In a qcow2 image that is possible
    /// whatever other files the image names; none of them is opened.
    fn header_storage(&self, options: OpenOptions, watch: &dyn Watch) -> Result<Storage, Error> {
        let storage = self.storage_with_header(options, watch)?;
        match self.format {
            ImageFormat::Raw => Ok(storage),
            ImageFormat::Qcow2 => storage.into_qcow2_header(&self.location),
        }
    }

    /// The storage that holds the header, not yet opened as an image.
    fn storage_with_header(
        &self,
        options: OpenOptions,
        watch: &dyn Watch,
    ) -> Result<Storage, Error> {
        self.check_header()?;
        let location = self.header_location();
        let storage = Storage::open(location, self.remote, options, watch.interrupt())?;
        note_no_flush(&storage, location, options, watch);
        if let Some(parent) = storage.ceph.as_ref().and_then(|ceph| ceph.parent.as_ref()) {
            watch.notes(Note::Clone { location, parent });
        }
        let names = storage.names();
        if options.writes() && names > 1 {
            watch.notes(Note::Names { location, names });
        }
        Ok(storage)
    }

    fn options(&self, undo: Undo, limits: Limits) -> container::OpenOptions {
        let options = container::OpenOptions::new(undo).limits(limits);
        options.trust(self.trust())
    }

    fn open(
        &self,
        storage: Storage,
        options: container::OpenOptions,
        watch: &dyn Watch,
    ) -> Result<Container, Error> {
        let location = self.header_location();
        let container = Container::open(storage.header(), options).map_err(|error| {
            let qcow2 = matches!(error, OpenError::NotLuks) && storage.begins_with(&qcow2::MAGIC);
            let other = match error {
                OpenError::NotLuks if !qcow2 => other_data(&*storage.backend),
                _ => None,
            };
            let error = Error::from(error).about(location);
            let error = error.advise_if(qcow2, Advice::FormatQcow2);
            match other {
                Some(what) => error.advise(Advice::LooksLike(what)),
                None => error,
            }
        })?;
        if storage.qcow2_header.is_some() && container.version() != Version::Luks1 {
            let message = format!("{}: LUKS2 in a qcow2 image", self.location);
            let error = Error::new(Kind::Unsupported, message);
            return Err(error.advise(Advice::OnlyLuks1InQcow2));
        }
        match container.health() {
            Health::Good => {}
            health => watch.notes(Note::Health { location, health }),
        }
        if let Ok(segment) = container.data_segment()
            && let Some(weakness) = segment.cipher.weakness()
        {
            watch.notes(Note::OnlyRead {
                location,
                cipher: segment.cipher,
                weakness,
            });
        }
        let requirements = &*container.requirements();
        if !requirements.is_empty() {
            watch.notes(Note::Requirements {
                location,
                requirements,
            });
        }
        Ok(container)
    }
}

/// The name of what is in the place of a header, if it is known.
fn other_data(storage: &dyn Backend) -> Option<&'static str> {
    container::other_data(storage).ok().flatten()
}

/// How often a header is read beside a program that may be changing it.
const LOOKS: u32 = 10;
/// The time between two reads. A change of a header waits for the disk between its steps.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Opens a header with the lock for headers. If another luksmith or cryptsetup has the image open,
/// opens it without a lock, until the header is whole and stays the same.
fn look<T>(
    file: OpenOptions,
    watch: &dyn Watch,
    open: impl Fn(OpenOptions, &dyn Watch) -> Result<(Container, T), Error>,
) -> Result<(Container, T), Error> {
    let busy = match open(file.header(true), watch) {
        Err(error) if error.kind() == Kind::Busy => error,
        opened => return opened,
    };
    let silent = Silent(watch.interrupt().clone());
    let unlocked = file.force_share(true);
    for look in 1..=LOOKS {
        watch.check()?;
        // A change in progress may show as a damaged header, or by its undo record.
        let opened = open(unlocked, &silent);
        // A server that reencrypts the volume changes the header all the time. Equal copies are of
        // one moment.
        if let Ok((container, _)) = &opened
            && matches!(container.health(), Health::Good)
            && is_reencrypted(container)
        {
            return opened;
        }
        std::thread::sleep(BETWEEN_LOOKS);
        if let Ok((container, _)) = &opened
            && (matches!(container.health(), Health::Good) || look == LOOKS)
            && container.check_unchanged().is_ok()
        {
            return open(unlocked, watch);
        }
    }
    Err(busy)
}

/// Refuses a place for the undo record in which no file can be made, before a passphrase is asked
/// for.
fn check_undo(named: Option<&Path>) -> Result<(), Error> {
    named.map_or(Ok(()), |path| {
        Destination::look(path)?.check_room(Needed::Ciphertext(1))
    })
}

fn note_no_flush(storage: &Storage, location: &Location, options: OpenOptions, watch: &dyn Watch) {
    if options.writes() && !storage.backend.can_flush() {
        watch.notes(Note::NoFlush { location });
    }
}
