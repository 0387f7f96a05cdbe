//! The plan of a new volume, which is checked first and carried out later.

use std::sync::Arc;

use super::made::Made;
use super::options::{Extent, NewVolume, check_size, measure, too_large};
use super::there::{Found, Loss, Target, There, overwritten, replaced};
use crate::backend::Backend;
use crate::backend::file::{FileBackend, OpenOptions};
use crate::container::{self, Container, CreateOptions, Layout, Undo};
use crate::layout::{NewImage, Qcow2};
use crate::location::Location;
use crate::secret::Passphrase;
use crate::task::destination::Needed;
use crate::task::new_file::NewFile;
use crate::task::open::ImageFormat;
use crate::task::openers::{Opener, Properties};
use crate::task::storage::Storage;
use crate::task::{Advice, Error, Kind, Note, Watch, Work, Working, new_image, size};

/// The bytes that a new header writes at most: both copies and the material of one keyslot.
const HEADER: u64 = 1 << 20;

/// A new volume whose options and places were checked, and which is not made yet.
pub struct Plan {
    new: NewVolume,
    location: Location,
    extent: Extent,
    target: Target,
    header: Option<Target>,
    there: There,
    losses: Vec<Loss>,
    options: CreateOptions,
    layout: Layout,
}

impl Plan {
    /// Checks the options against each other and against what exists. Files that would be replaced
    /// are locked, devices that would be overwritten are opened exclusively.
    ///
    /// # Errors
    /// [`Kind::Parameters`] for options that contradict; what the storage reports.
    pub fn look(mut new: NewVolume, location: &Location, extent: Extent) -> Result<Self, Error> {
        let mut there = There::default();
        let mut losses = Vec::new();
        let server = (new.remote, &new.interrupt);
        let target = match (Found::at(location, new.remote)?, extent) {
            (Found::InPlace(found), _) => {
                overwritten(&found, location, server, &mut there, &mut losses)?
            }
            (Found::File(file, _), Extent::AllThereIs) if new.header.is_some() => {
                Target::There(Storage::open_found(&file)?)
            }
            (Found::NoImage(image), Extent::Exactly(_) | Extent::AtLeast(_)) => {
                new.check_new_image(&image)?;
                Target::Image(image)
            }
            (Found::NoImage(_), _) => {
                let message = "a volume in a new image needs a size";
                return Err(Error::parameters(message).advise(Advice::Size));
            }
            (_, Extent::AllThereIs) => {
                let message = "a volume in a file needs a size";
                return Err(Error::parameters(message).advise(Advice::Size));
            }
            (Found::File(file, size), _) => {
                there.image = Some(replaced(&file, size, &mut losses)?);
                Target::New(file)
            }
            (Found::Nothing(file), _) => Target::New(file),
        };
        let header = match &new.header {
            None => None,
            Some(location) => Some(match Found::at(location, new.remote)? {
                Found::NoImage(image) => Target::Image(image),
                Found::InPlace(found) => {
                    overwritten(&found, location, server, &mut there, &mut losses)?
                }
                Found::File(file, size) => {
                    there.header = Some(replaced(&file, size, &mut losses)?);
                    Target::New(file)
                }
                Found::Nothing(file) => Target::New(file),
            }),
        };
        new.check_format(extent)?;
        let blank = match &header {
            Some(header) => header.is_new(),
            None => target.is_new(),
        };
        let period = target.period();
        let size = match (&target, extent) {
            (Target::There(there), Extent::AllThereIs) => Some(there.backend.geometry().size),
            _ => extent.size(),
        };
        let (options, layout) = new.options(size, blank, period)?;
        check_size(extent.size(), options.sector_size)?;
        new.cost.kind(options.hash, options.version)?;
        let plan = Self {
            new,
            location: location.clone(),
            extent,
            target,
            header,
            there,
            losses,
            options,
            layout,
        };
        plan.check_end()?;
        plan.check_room()?;
        Ok(plan)
    }

    /// Refuses folders in which the new files cannot be made. A file that is filled needs room for
    /// all of its bytes. Another one is sparse, and needs room for its header.
    fn check_room(&self) -> Result<(), Error> {
        let header = self.layout.header_size.min(HEADER);
        if let Target::New(destination) = &self.target {
            let whole = match self.extent {
                Extent::AtLeast(size) => Some(size),
                Extent::Exactly(size) if self.new.preallocate => Some(size),
                _ => None,
            };
            let needed = match whole {
                Some(size) if self.new.format == ImageFormat::Raw => {
                    self.layout.data_offset.saturating_add(size)
                }
                _ => header,
            };
            destination.check_room(Needed::Ciphertext(needed))?;
        }
        if let Some(Target::New(destination)) = &self.header {
            destination.check_room(Needed::Ciphertext(header))?;
        }
        Ok(())
    }

    /// What making the volume would destroy. Usually this is empty.
    #[must_use]
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// The device or the export that would be overwritten, if it is one.
    pub(in crate::task) fn in_place(&self) -> Option<&Storage> {
        match &self.target {
            Target::There(storage) => Some(storage),
            Target::New(_) | Target::Image(_) => None,
        }
    }

    /// Refuses a size that is not that of the whole existing storage.
    fn check_end(&self) -> Result<(), Error> {
        let (Target::There(there), Extent::Exactly(size)) = (&self.target, self.extent) else {
            return Ok(());
        };
        let room = there.backend.geometry().size;
        if self.new.format == ImageFormat::Raw
            && room.checked_sub(self.layout.data_offset) != Some(size)
        {
            let message = format!("a volume on {} reaches to its end", self.location);
            return Err(Error::parameters(message).advise(Advice::NoSize));
        }
        Ok(())
    }

    /// Measures the key derivation, creates the files and writes the header. This destroys what
    /// [`Plan::losses`] lists; old files are replaced only by [`Made::keep`].
    ///
    /// # Errors
    /// An interrupt, and what the storage reports.
    pub fn make<'w>(
        self,
        passphrase: &Passphrase,
        watch: &'w dyn Watch,
    ) -> Result<Made<'w>, Error> {
        let (mut options, layout) = (self.options, self.layout);
        measure(&self.new.cost, &mut options, watch)?;
        let opened = Properties {
            format: self.new.format,
            version: options.version,
            cipher: options.cipher,
            key_size: options.key_size,
            hash: options.hash,
            data_offset: layout.data_offset,
            detached: options.detached,
            part: self.target.is_part() || self.header.as_ref().is_some_and(Target::is_part),
            text: passphrase.is_text(),
            period: self.target.period(),
            only_here: self.target.is_objects()
                || self.header.as_ref().is_some_and(Target::is_objects),
        };
        let mut images = Vec::new();
        let (data, image) = match self.target {
            Target::Image(absent) => {
                let size = self.extent.size().unwrap_or(0);
                let size = layout.data_offset.checked_add(size).ok_or_else(too_large)?;
                let (data, made) = new_image::make(absent, size)?;
                images.push(made);
                (data, None)
            }
            Target::There(there) => {
                if !there.backend.can_flush() {
                    let location = &self.location;
                    watch.notes(Note::NoFlush { location });
                }
                (there, None)
            }
            Target::New(destination) => {
                let name = destination.path().extension();
                if self.new.format == ImageFormat::Raw && name.is_some_and(|name| name == "qcow2") {
                    let location = &self.location;
                    watch.notes(Note::RawNamed { location });
                }
                let file = NewFile::at(destination, watch)?;
                let data = Arc::new(backend_of(&file)?);
                if self.new.format == ImageFormat::Raw {
                    let size = self.extent.size().unwrap_or(0);
                    let size = layout.data_offset.checked_add(size).ok_or_else(too_large)?;
                    let room = |error| {
                        let size = size::both(size);
                        Error::from(error).about(format_args!(
                            "cannot make room for {size} in {}",
                            self.location
                        ))
                    };
                    data.resize(size).map_err(room)?;
                    if self.new.preallocate {
                        data.preallocate().map_err(room)?;
                    }
                }
                (Storage::of_file(data), Some(file))
            }
        };
        let data = match (self.new.format, self.extent.size()) {
            (ImageFormat::Qcow2, Some(size)) => {
                new_qcow2(data, self.new.cluster_size, size, layout.header_size)?
            }
            _ => data,
        };
        let (storage, header) = match self.header {
            Some(Target::There(there)) => (there.backend, None),
            Some(Target::Image(absent)) => {
                let (storage, made) = new_image::make(absent, layout.header_size)?;
                images.push(made);
                (storage.backend, None)
            }
            Some(Target::New(destination)) => {
                let file = NewFile::at(destination, watch)?;
                let storage: Arc<dyn Backend> = Arc::new(backend_of(&file)?);
                storage.resize(layout.header_size)?;
                (storage, Some(file))
            }
            None => (data.header(), None),
        };
        if let (Some(size), None, None) = (self.extent.size(), &image, &data.qcow2) {
            let room = data.backend.geometry().size;
            let room = room.saturating_sub(layout.data_offset);
            if room < size {
                let location = &self.location;
                let message = format!("{location} has room for {room} bytes, not for {size}");
                return Err(Error::new(Kind::Storage, message));
            }
        }
        let deriving = Working::begin(watch, Work::Derive, None);
        let (container, unlocked) = Container::create(
            storage,
            options,
            container::OpenOptions::new(Undo::NotLookedFor).limits(self.new.limits),
            passphrase,
            watch.interrupt(),
        )?;
        deriving.finish();
        if let Some(period) = opened.period
            && !opened.openers().contains(&Opener::Librbd)
        {
            let location = &self.location;
            watch.notes(Note::NotLibrbd { location, period });
        }
        Ok(Made {
            container,
            unlocked,
            data,
            opened,
            grows: self.extent == Extent::Growing && image.is_some(),
            image,
            header,
            images,
            watch,
            _there: self.there,
        })
    }
}

fn backend_of(file: &NewFile<'_>) -> Result<FileBackend, Error> {
    let (open, path) = (file.file()?, file.destination().path());
    let options = OpenOptions::new().write(true);
    Ok(FileBackend::from_file(open, path, options)?)
}

/// Makes an image in storage that holds nothing of value.
fn new_qcow2(
    data: Storage,
    cluster_size: Option<u32>,
    size: u64,
    header_size: u64,
) -> Result<Storage, Error> {
    let mut image = NewImage::new(size, header_size);
    if let Some(cluster_size) = cluster_size {
        image = image.cluster_size(cluster_size);
    }
    let image = Qcow2::create(data.backend.clone(), &image)?;
    Ok(data.with_qcow2(image))
}
