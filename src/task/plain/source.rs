//! Plain data that is encrypted.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use luksmith_formats::image::signature::{END, START};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::access::PlainAccess;
use super::begin::refuse_images;
#[cfg(feature = "nbd")]
use super::export::ExportReader;
#[cfg(feature = "vet")]
use super::image::DiskImage;
use crate::backend::file::OpenOptions;
use crate::backend::lock::{Access, ImageLock};
use crate::container::UndoFile;
use crate::location::Location;
use crate::reencrypt::is_room_record;
use crate::sys::folder::Folder;
use crate::task::destination::not_storage;
use crate::task::part::{PlainPart, open_beside};
use crate::task::storage::{Storage, not_opened};
use crate::task::{Advice, Error, Kind, Watch};
use luksmith_formats::nbd::uri::Uri;

/// How many bytes of a stream are looked at for the signature of an image.
const BEGIN: usize = 4096;

/// Whether there is the undo record of a move beside a file.
fn has_moved(file: &File) -> bool {
    let Ok((folder, name)) = Folder::of_open(file) else {
        return false;
    };
    is_room_record(&UndoFile::within(&folder, &name)).unwrap_or(false)
}

/// How many bytes of an export are compared with those of another storage.
#[cfg(feature = "nbd")]
pub(in crate::task) const LOOKED_AT: u64 = 1 << 20;

/// Plain data to be encrypted.
pub struct PlainSource {
    from: From,
    name: PathBuf,
    size: Option<u64>,
    _lock: Option<ImageLock>,
}

enum From {
    /// Reading may block for long: the interrupt is looked at meanwhile. The first bytes may have
    /// been read already.
    Stream {
        file: File,
        begin: Vec<u8>,
    },
    File(File),
    /// A part of a file, and how much of it was read.
    Part(PlainPart, u64),
    /// The disk in an image, and how much of it was read.
    #[cfg(feature = "vet")]
    Image(Box<DiskImage>, u64),
    #[cfg(feature = "nbd")]
    Export(Box<ExportReader>),
}

impl PlainSource {
    /// A stream of unknown size, such as a pipe. `name` is for messages.
    #[must_use]
    pub fn stream(file: File, name: &str) -> Self {
        let begin = Vec::new();
        Self {
            from: From::Stream { file, begin },
            name: name.into(),
            size: None,
            _lock: None,
        }
    }

    /// A file or a block device, read as it is. It is locked, so that no program that respects the
    /// locks of images writes to it meanwhile.
    ///
    /// # Errors
    /// [`Kind::Busy`] if a program has it open for writing; [`Kind::Damaged`] if an encryption in
    /// place of it was interrupted; anything but a file or a block device; failed system calls.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // Opening a FIFO would wait for a writer, and no signal would end that.
        let mut file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| Error::io("open", path, error))?;
        let metadata = file
            .metadata()
            .map_err(|error| Error::io("look at", path, error))?;
        if !metadata.is_file() && !metadata.file_type().is_block_device() {
            return Err(not_storage(path).advise(Advice::ReadAsStream));
        }
        let lock = ImageLock::take(&file, Access::Shared).map_err(|error| {
            Error::from(error).about(format_args!("cannot read {}", path.display()))
        })?;
        if has_moved(&file) {
            let message = "its encryption in place was interrupted: a part of it may have moved";
            let error = Error::new(Kind::Damaged, message).about(path.display());
            return Err(error.advise(Advice::EndMove));
        }
        let size = file
            .seek(SeekFrom::End(0))
            .and_then(|size| file.rewind().map(|()| size));
        let size = size.map_err(|error| Error::io("measure", path, error))?;
        Ok(Self {
            from: From::File(file),
            name: path.to_owned(),
            size: Some(size),
            _lock: Some(lock),
        })
    }

    /// What is at a location, read as it is. If parts of one file are the source and `beside`,
    /// where the volume will be, they share the locks of the file.
    ///
    /// # Errors
    /// As [`PlainSource::open`] and [`PlainSource::export`]; a location that only an emulator
    /// opens.
    pub fn at(
        location: &Location,
        access: PlainAccess,
        beside: &Location,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        match location {
            Location::Path(path) => Self::open(path),
            Location::Nbd(uri) => Self::connect(uri, location, access, watch),
            Location::Part { whole, .. } => match &**whole {
                Location::Nbd(uri) => Self::connect(uri, location, access, watch),
                _ => {
                    let options = open_beside(location, beside, OpenOptions::new());
                    let (remote, interrupt) = (access.remote, watch.interrupt());
                    let storage = Storage::open(location, remote, options, interrupt)?;
                    Self::part(PlainPart::of(storage, location)?, location)
                }
            },
            other => Err(not_opened(other)),
        }
    }

    fn part(part: PlainPart, location: &Location) -> Result<Self, Error> {
        Ok(Self {
            size: Some(part.range.end - part.range.start),
            from: From::Part(part, 0),
            name: location.to_string().into(),
            _lock: None,
        })
    }

    /// The disk in an opened image. `name` is for messages.
    #[cfg(feature = "vet")]
    #[must_use]
    pub fn image(image: DiskImage, name: &str) -> Self {
        Self {
            size: Some(image.size()),
            from: From::Image(Box::new(image), 0),
            name: name.into(),
            _lock: None,
        }
    }

    /// All of an export, read as it is.
    ///
    /// # Errors
    /// A URI over which plaintext would cross the network without TLS, unless `access` allows that;
    /// what the server reports.
    #[cfg(feature = "nbd")]
    pub fn export(uri: &Uri, access: PlainAccess, watch: &dyn Watch) -> Result<Self, Error> {
        let location = Location::Nbd(Box::new(uri.clone()));
        Self::connect(uri, &location, access, watch)
    }

    /// An export at a location, or the part of it that the location names.
    #[cfg(feature = "nbd")]
    fn connect(
        uri: &Uri,
        location: &Location,
        access: PlainAccess,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        let reader = ExportReader::connect(uri, location, access, watch)?;
        Ok(Self {
            size: Some(reader.size()),
            from: From::Export(Box::new(reader)),
            name: location.to_string().into(),
            _lock: None,
        })
    }

    #[cfg(not(feature = "nbd"))]
    fn connect(uri: &Uri, _: &Location, _: PlainAccess, _: &dyn Watch) -> Result<Self, Error> {
        let missing = crate::MissingFeature::new("an export of an NBD server", "nbd");
        Err(Error::new(Kind::Unsupported, missing).about(uri))
    }

    /// The number of bytes, if it is known.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Refuses data that begins as a disk image or a LUKS volume does, where the caller did not
    /// state that it is taken as it is. Of a stream, the first bytes are waited for.
    ///
    /// # Errors
    /// [`Kind::Parameters`] for such data, with
    /// [`Advice::SourceFormat`]; an interrupt; what the source reports.
    pub fn refuse_images(&mut self, watch: &dyn Watch) -> Result<(), Error> {
        let name = self.name.display().to_string();
        if let From::Stream { .. } = &self.from {
            let mut read = vec![0; BEGIN];
            let filled = self.fill(&mut read, watch)?;
            read.truncate(filled);
            let refused = refuse_images(&name, &read, &[], u64::MAX);
            if let From::Stream { begin, .. } = &mut self.from {
                *begin = read;
            }
            return refused;
        }
        let size = self.size.unwrap_or(0);
        let (start, end) = (length(size.min(START as u64)), length(size.min(END as u64)));
        let (mut start, mut end) = (vec![0; start], vec![0; end]);
        let at_end = size - end.len() as u64;
        match &self.from {
            From::File(file) => file
                .read_exact_at(&mut start, 0)
                .and_then(|()| file.read_exact_at(&mut end, at_end))
                .map_err(|error| Error::io("read", &self.name, error))?,
            From::Part(part, _) => {
                let (file, from) = (&part.file, part.range.start);
                file.read_exact_at(&mut start, from)
                    .and_then(|()| file.read_exact_at(&mut end, from + at_end))
                    .map_err(|error| Error::io("read", &self.name, error))?;
            }
            #[cfg(feature = "nbd")]
            From::Export(reader) => {
                reader.look(0, &mut start)?;
                reader.look(at_end, &mut end)?;
            }
            // The disk in an image that was stated may hold anything.
            #[cfg(feature = "vet")]
            From::Image(..) => return Ok(()),
            From::Stream { .. } => return Ok(()),
        }
        refuse_images(&name, &start, &end, size)
    }

    /// The first bytes of a source on an export, and its size.
    pub(in crate::task) fn begin_of_export(&self) -> Result<Option<(Vec<u8>, u64)>, Error> {
        #[cfg(feature = "nbd")]
        if let From::Export(reader) = &self.from {
            let mut begin = vec![0; length(reader.size().min(LOOKED_AT))];
            reader.look(0, &mut begin)?;
            return Ok(Some((begin, reader.size())));
        }
        Ok(None)
    }

    /// Fills the buffer, or as much of it as there is data left.
    pub(in crate::task) fn fill(
        &mut self,
        buffer: &mut [u8],
        watch: &dyn Watch,
    ) -> Result<usize, Error> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            watch.check()?;
            match self.read(rest, watch)? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    /// Skips the hole of a file that begins here, in whole pieces of `piece` bytes, and returns how
    /// many bytes these are. The last piece of the file is never skipped: it may be shorter.
    pub(in crate::task) fn skip_hole(&mut self, piece: u64) -> u64 {
        let size = self.size.unwrap_or(0);
        match &mut self.from {
            From::File(file) => {
                let Ok(at) = file.stream_position() else {
                    return 0;
                };
                let skipped = hole_within(file, at..size) / piece * piece;
                // The search has moved the position.
                match file.seek(SeekFrom::Start(at + skipped)) {
                    Ok(_) => skipped,
                    Err(_) => 0,
                }
            }
            From::Part(part, at) => {
                let (start, end) = (part.range.start + *at, part.range.start + size);
                let skipped = hole_within(&part.file, start..end) / piece * piece;
                *at += skipped;
                skipped
            }
            _ => 0,
        }
    }

    fn read(&mut self, into: &mut [u8], watch: &dyn Watch) -> Result<usize, Error> {
        let size = self.size.unwrap_or(0);
        let left = |at: u64| length(size.saturating_sub(at)).min(into.len());
        match &mut self.from {
            From::Stream { begin, .. } if !begin.is_empty() => {
                let taken = begin.len().min(into.len());
                into[..taken].copy_from_slice(&begin[..taken]);
                begin.drain(..taken);
                Ok(taken)
            }
            From::Stream { file, .. } => {
                wait(file, &self.name, watch)?;
                read_some(file, into).map_err(|error| Error::io("read", &self.name, error))
            }
            From::File(file) => {
                read_some(file, into).map_err(|error| Error::io("read", &self.name, error))
            }
            From::Part(part, at) => {
                let len = left(*at);
                let read = part
                    .file
                    .read_exact_at(&mut into[..len], part.range.start + *at);
                read.map_err(|error| Error::io("read", &self.name, error))?;
                *at += len as u64;
                Ok(len)
            }
            #[cfg(feature = "vet")]
            From::Image(image, at) => {
                let len = left(*at);
                let read = image.read_at(*at, &mut into[..len]);
                read.map_err(|error| Error::from(error).about(self.name.display()))?;
                *at += len as u64;
                Ok(len)
            }
            #[cfg(feature = "nbd")]
            From::Export(reader) => {
                let read = reader.read(into);
                read.map_err(|error| Error::from(error).about(self.name.display()))
            }
        }
    }
}

/// The bytes of the hole at the start of a range of a file, without the last byte of the range. 0
/// where the file system does not know.
fn hole_within(file: &File, range: Range<u64>) -> u64 {
    let last = range.end.saturating_sub(1);
    let data = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(range.start)) {
        Ok(data) => data,
        // There is no data up to the end of the file.
        Err(rustix::io::Errno::NXIO) => last,
        Err(_) => 0,
    };
    data.min(last).saturating_sub(range.start)
}

fn read_some(file: &mut File, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Waits until a stream can be read.
fn wait(file: &File, name: &Path, watch: &dyn Watch) -> Result<(), Error> {
    loop {
        watch.check()?;
        let soon = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&soon)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(Error::io("read", name, error.into())),
        }
    }
}

/// Converts a length that fits the memory.
fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Silent;

    const PIECE: u64 = 1 << 20;

    /// A hole is skipped in whole pieces, up to the last piece of the file.
    #[test]
    fn holes_are_skipped_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plain");
        let file = File::create_new(&path).unwrap();
        file.set_len(10 * PIECE).unwrap();
        file.write_all_at(&[7; 100], 4 * PIECE + 12345).unwrap();
        let mut source = PlainSource::open(&path).unwrap();
        let watch = Silent::default();
        let mut buffer = vec![1; length(PIECE)];

        assert_eq!(source.skip_hole(PIECE), 4 * PIECE);
        assert_eq!(source.fill(&mut buffer, &watch).unwrap(), buffer.len());
        assert_eq!(buffer[12345..12445], [7; 100]);
        assert_eq!(source.skip_hole(PIECE), 4 * PIECE);
        assert_eq!(source.skip_hole(PIECE), 0);
        assert_eq!(source.fill(&mut buffer, &watch).unwrap(), buffer.len());
        assert!(buffer.iter().all(|byte| *byte == 0));
        assert_eq!(source.fill(&mut buffer, &watch).unwrap(), 0);
    }

    #[test]
    fn a_file_that_becomes_shorter_is_not_taken_for_a_hole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plain");
        let file = File::create_new(&path).unwrap();
        file.set_len(10 * PIECE).unwrap();
        let mut source = PlainSource::open(&path).unwrap();
        file.set_len(5 * PIECE).unwrap();
        let skipped = source.skip_hole(PIECE);
        let mut buffer = vec![1; length(PIECE)];
        let read = source.fill(&mut buffer, &Silent::default()).unwrap();
        assert!(skipped + (read as u64) < 10 * PIECE);
    }
}
