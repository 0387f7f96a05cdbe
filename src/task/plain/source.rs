//! Plain data that is encrypted.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use luksmith_formats::image::signature::{END, START};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

#[cfg(feature = "nbd")]
use super::access::PlainAccess;
use super::begin::refuse_images;
#[cfg(feature = "nbd")]
use super::export::ExportReader;
#[cfg(feature = "vet")]
use super::image::DiskImage;
use crate::backend::lock::{Access, ImageLock};
use crate::task::destination::not_storage;
use crate::task::{Advice, Error, Watch};
#[cfg(feature = "nbd")]
use luksmith_formats::nbd::uri::Uri;

/// How many bytes of a stream are looked at for the signature of an image.
const BEGIN: usize = 4096;

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
    /// [`Kind::Busy`](crate::task::Kind::Busy) if a program has it open for writing; anything but a
    /// file or a block device; failed system calls.
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
        let reader = ExportReader::connect(uri, access, watch)?;
        Ok(Self {
            size: Some(reader.export().size()),
            from: From::Export(Box::new(reader)),
            name: uri.to_string().into(),
            _lock: None,
        })
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
    /// [`Kind::Parameters`](crate::task::Kind::Parameters) for such data, with
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
            #[cfg(feature = "nbd")]
            From::Export(reader) => {
                let export = reader.export();
                export.read_at(0, &mut start)?;
                export.read_at(at_end, &mut end)?;
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
            let export = reader.export();
            let mut begin = vec![0; length(export.size().min(LOOKED_AT))];
            export.read_at(0, &mut begin)?;
            return Ok(Some((begin, export.size())));
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

    fn read(&mut self, into: &mut [u8], watch: &dyn Watch) -> Result<usize, Error> {
        #[cfg(feature = "vet")]
        let size = self.size.unwrap_or(0);
        #[cfg(feature = "vet")]
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
