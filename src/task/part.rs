//! Opens what is at a location: a file, a device, an export, an image in Ceph or a volume in an
//! object store, or a part of one, which is a partition or the bytes from an offset on.
//!
//! The whole file is locked, so other programs notice that it is in use. Within this process,
//! several parts of a file share its descriptor and its locks, unless they overlap.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use luksmith_formats::image::qcow2;

use super::destination::Destination;
use super::storage::{Remote, Storage, begins_with, not_opened, open_file};
use super::{Advice, Error, ceph, objects, web};
use crate::Interrupt;
use crate::backend::Backend;
#[cfg(feature = "nbd")]
use crate::backend::IoError;
use crate::backend::file::{FileBackend, OpenOptions};
use crate::backend::section::Section;
#[cfg(feature = "nbd")]
use crate::backend::section::SectionError;
use crate::location::{Location, Part};
use crate::partition::{Disk, PartitionError};
use crate::sys::folder::same_file;

/// A part of a file that this process has open.
type Opened = Section<Arc<FileBackend>>;

/// The parts of files that this process has open for writing.
static WRITTEN: Mutex<Vec<Weak<Opened>>> = Mutex::new(Vec::new());

impl Storage {
    /// Opens the storage at a location. The interrupt ends the wait
    /// for a server of NBD, also later.
    ///
    /// # Errors
    /// A location that only an emulator opens, and what the storage reports.
    pub fn open(
        location: &Location,
        remote: Remote,
        options: OpenOptions,
        interrupt: &Interrupt,
    ) -> Result<Self, Error> {
        match location {
            Location::Path(path) => Self::open_path(path, options),
            Location::Nbd(uri) => Self::connect(uri, remote, options.writes(), interrupt),
            Location::Rbd(uri) => ceph::open(uri, remote, options),
            Location::Objects(uri) => objects::open(uri, remote, options),
            Location::Server(server) if server.is_web() => web::open(server, remote, options),
            Location::Part { whole, part } => {
                open((whole, *part), location, remote, options, interrupt)
            }
            other => Err(not_opened(other)),
        }
    }
}

/// Opens a part of a location. `location` is for messages.
fn open(
    (whole, part): (&Location, Part),
    location: &Location,
    remote: Remote,
    options: OpenOptions,
    interrupt: &Interrupt,
) -> Result<Storage, Error> {
    let Some(path) = whole.path() else {
        let storage = Storage::open(whole, remote, options, interrupt)?;
        let (crossed, range) = find(&Disk::of(&*storage.backend), part)
            .map_err(|error| advised(error, &*storage.backend).about(location))?;
        let offset = Some(range.start);
        let section = Section::new(storage.backend.clone(), range);
        let backend = Arc::new(section.map_err(|error| Error::from(error).about(location))?);
        return Ok(Storage {
            backend,
            offset,
            crossed,
            ..storage
        });
    };
    let shared = options.can_share();
    let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    written.retain(|one| one.strong_count() > 0);
    let file = match shared.then(|| opened(&written, path)).flatten() {
        Some(file) => file,
        None => open_file(path, options)?,
    };
    of_file(file, part, options, &mut written).map_err(|error| error.about(location))
}

/// The options with which a part is opened that is read while another part, `beside`, is written.
/// Parts of one file share its descriptor and its locks, which then have to be those for writing.
#[must_use]
pub fn open_beside(location: &Location, beside: &Location, options: OpenOptions) -> OpenOptions {
    let about = |location: &Location| {
        let path = location.part().and(location.path_of_whole())?;
        path.metadata().ok()
    };
    match (about(location), about(beside)) {
        (Some(one), Some(other)) if same_file(&one, &other) => {
            options.write(true).force_share(false)
        }
        _ => options,
    }
}

/// Opens a part of what was found at a destination, for writing. `location` is for messages.
pub(super) fn open_found(
    destination: &Destination,
    part: Part,
    location: &Location,
) -> Result<Storage, Error> {
    let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    written.retain(|one| one.strong_count() > 0);
    let file = match opened(&written, destination.path()) {
        Some(file) => file,
        None => Storage::file_found(destination)?,
    };
    let options = OpenOptions::new().write(true);
    of_file(file, part, options, &mut written).map_err(|error| error.about(location))
}

/// A part of a file for plain data, of which this process has the locks.
pub(super) struct PlainPart {
    /// The file, and the bytes of the part in it.
    pub(super) file: File,
    pub(super) range: Range<u64>,
    _locked: Storage,
}

impl PlainPart {
    /// A part that was opened with [`open`] or [`open_found`].
    pub(super) fn of(part: Storage, location: &Location) -> Result<Self, Error> {
        let (Some(opened), Some(start)) = (&part.file, part.offset) else {
            return Err(not_opened(location));
        };
        let file = opened
            .descriptor()
            .map_err(|error| Error::io("open", opened.path(), error))?;
        let end = start + part.backend.geometry().size;
        Ok(Self {
            file,
            range: start..end,
            _locked: part,
        })
    }
}

/// The partitions that a part of an export with plain data shares bytes with, and where it is, in
/// bytes. `read` fills a buffer from an offset on.
#[cfg(feature = "nbd")]
pub(super) fn of_export(
    part: Part,
    size: u64,
    read: impl Fn(u64, &mut [u8]) -> Result<(), IoError>,
    location: &Location,
) -> Result<(Vec<u32>, Range<u64>), Error> {
    let (crossed, found) =
        find(&Disk::new(size, read), part).map_err(|error| Error::from(error).about(location))?;
    if found.end > size {
        let outside = SectionError::Outside { part: found, size };
        return Err(Error::from(outside).about(location));
    }
    Ok((crossed, found))
}

/// The file at this path, if parts of it are open for writing.
fn opened(written: &[Weak<Opened>], path: &Path) -> Option<Arc<FileBackend>> {
    let about = path.metadata().ok()?;
    let parts = written.iter().filter_map(Weak::upgrade);
    parts
        .map(|part| part.storage().clone())
        .find(|file| (file.about()).is_ok_and(|opened| same_file(&opened, &about)))
}

fn of_file(
    file: Arc<FileBackend>,
    part: Part,
    options: OpenOptions,
    written: &mut Vec<Weak<Opened>>,
) -> Result<Storage, Error> {
    let (crossed, range) = {
        let disk = match file.sector_size() {
            Some(sector_size) => Disk::of(&*file).with_sector_size(sector_size),
            None => Disk::of(&*file),
        };
        find(&disk, part).map_err(|error| advised(error, &*file))?
    };
    if let Some(device) = file.partition_within(&range) {
        let message = "the kernel has a partition there, as a device of its own";
        return Err(Error::parameters(message).advise(Advice::NameDevice(device)));
    }
    let overlapping = written.iter().filter_map(Weak::upgrade).find(|one| {
        let other = one.part();
        let apart = other.end <= range.start || range.end <= other.start;
        Arc::ptr_eq(one.storage(), &file) && !apart
    });
    if let Some(other) = overlapping {
        let Range { start, end } = other.part();
        let message = format!("this process has bytes {start} to {end} open, which overlap it");
        return Err(Error::parameters(message));
    }
    let offset = Some(range.start);
    let section = Section::new(file.clone(), range)?;
    let section = Arc::new(match options.writes() {
        true => section,
        false => section.into_read_only(),
    });
    if !file.geometry().read_only {
        written.push(Arc::downgrade(&section));
    }
    Ok(Storage {
        backend: section,
        offset,
        crossed,
        ..Storage::of_file(file)
    })
}

/// The partitions that share bytes with a part of a disk, unless it is a partition itself, and
/// where it is, in bytes.
fn find(disk: &Disk<'_>, part: Part) -> Result<(Vec<u32>, Range<u64>), PartitionError> {
    let (offset, size) = match part {
        Part::Partition(number) => return Ok((Vec::new(), disk.partition(number)?)),
        Part::Range { offset, size } => (offset, size),
    };
    let end = match size {
        Some(size) => offset.saturating_add(size),
        None => disk.size().max(offset),
    };
    let range = offset..end;
    // A range is also for a disk whose table cannot be read any more.
    let crossed = disk.crossed(&range).unwrap_or_default();
    Ok((crossed, range))
}

/// The error, with what may help.
fn advised(error: PartitionError, disk: &dyn Backend) -> Error {
    use PartitionError::{Damaged, NoTable, Outside, Overlap};
    let advice = match &error {
        NoTable if begins_with(disk, &qcow2::MAGIC) => Some(Advice::PartitionInImage),
        Damaged { backup, .. } => Some(Advice::NameRange(backup.clone())),
        NoTable | Outside(_) | Overlap { .. } => Some(Advice::NameRange(None)),
        _ => None,
    };
    let error = Error::from(error);
    match advice {
        Some(advice) => error.advise(advice),
        None => error,
    }
}
