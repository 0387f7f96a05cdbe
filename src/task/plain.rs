//! The plain ends of a bulk copy: the source that is encrypted, and the sink that takes decrypted
//! data.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::destination::not_storage;
use super::{Advice, Error, Kind, Watch};
use crate::backend::lock::{Access, ImageLock};

/// The smallest run of zeroes that a sparse sink leaves out, in bytes.
const HOLE: usize = 4096;

/// Plain data to be encrypted.
pub struct PlainSource {
    file: File,
    name: PathBuf,
    size: Option<u64>,
    /// Reading may block for long: the interrupt is looked at meanwhile.
    waits: bool,
    _lock: Option<ImageLock>,
}

impl PlainSource {
    /// A stream of unknown size, such as a pipe. `name` is for messages.
    #[must_use]
    pub fn stream(file: File, name: &str) -> Self {
        Self {
            file,
            name: name.into(),
            size: None,
            waits: true,
            _lock: None,
        }
    }

    /// A file or a block device. It is locked, so that no program that respects the locks of images
    /// writes to it meanwhile.
    ///
    /// # Errors
    /// [`Kind::Busy`] if a program has it open for writing; anything but a file or a block device;
    /// failed system calls.
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
            file,
            name: path.to_owned(),
            size: Some(size),
            waits: false,
            _lock: Some(lock),
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

    /// Fills the buffer, or as much of it as there is data left.
    pub(super) fn fill(&mut self, buffer: &mut [u8], watch: &dyn Watch) -> Result<usize, Error> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            self.wait(watch)?;
            match self.file.read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.name, error)),
            }
        }
        Ok(filled)
    }

    fn wait(&self, watch: &dyn Watch) -> Result<(), Error> {
        loop {
            watch.check()?;
            if !self.waits {
                return Ok(());
            }
            let soon = Timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            };
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&soon)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(Error::io("read", &self.name, error.into())),
            }
        }
    }
}

/// Where decrypted data goes.
pub struct PlainSink {
    to: To,
    name: PathBuf,
}

enum To {
    Stream(File),
    File { file: File, sparse: bool },
}

impl PlainSink {
    /// A stream, such as a pipe. `name` is for messages.
    #[must_use]
    pub fn stream(file: File, name: &str) -> Self {
        Self {
            to: To::Stream(file),
            name: name.into(),
        }
    }

    /// A new file, which is set to `size` bytes. With `sparse`, runs of zeroes are left out.
    ///
    /// # Errors
    /// Failed system calls.
    pub fn file(file: File, name: &Path, size: u64, sparse: bool) -> Result<Self, Error> {
        file.set_len(size)
            .map_err(|error| Error::io("write", name, error))?;
        Ok(Self {
            to: To::File { file, sparse },
            name: name.to_owned(),
        })
    }

    /// A block device, which must have `size` bytes at least.
    ///
    /// # Errors
    /// A device that is too small, and failed system calls.
    pub fn device(mut file: File, name: &Path, size: u64) -> Result<Self, Error> {
        check_device(&mut file, name, size)?;
        Ok(Self {
            to: To::File {
                file,
                sparse: false,
            },
            name: name.to_owned(),
        })
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.to {
            To::Stream(stream) => stream
                .write_all(bytes)
                .map_err(|error| Error::io("write to", &self.name, error)),
            To::File {
                file,
                sparse: false,
            } => file
                .write_all_at(bytes, offset)
                .map_err(|error| Error::io("write", &self.name, error)),
            To::File { file, sparse: true } => {
                for (at, run) in runs_of_data(bytes, HOLE) {
                    let written = file.write_all_at(run, offset + at as u64);
                    written.map_err(|error| Error::io("write", &self.name, error))?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn finish(self) -> Result<(), Error> {
        match self.to {
            To::Stream(_) => Ok(()),
            To::File { file, .. } => file
                .sync_all()
                .map_err(|error| Error::io("write", &self.name, error)),
        }
    }
}

/// Refuses a block device that has fewer than `size` bytes.
///
/// # Errors
/// A device that is too small, and failed system calls.
pub fn check_device(file: &mut File, name: &Path, size: u64) -> Result<(), Error> {
    let there = file
        .seek(SeekFrom::End(0))
        .map_err(|error| Error::io("measure", name, error))?;
    if there < size {
        let message = format!("{} has {there} bytes, the volume {size}", name.display());
        return Err(Error::new(Kind::Storage, message));
    }
    Ok(())
}

/// The parts of `bytes` that are not zeroes, in units of `hole` bytes, adjacent ones joined.
pub(super) fn runs_of_data(bytes: &[u8], hole: usize) -> Vec<(usize, &[u8])> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (index, piece) in bytes.chunks(hole).enumerate() {
        if piece.iter().all(|byte| *byte == 0) {
            continue;
        }
        let at = index * hole;
        match runs.last_mut() {
            Some((_, end)) if *end == at => *end = at + piece.len(),
            _ => runs.push((at, at + piece.len())),
        }
    }
    runs.into_iter()
        .filter_map(|(at, end)| bytes.get(at..end).map(|run| (at, run)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_are_left_out_in_whole_pieces() {
        let mut bytes = vec![0; 5 * HOLE];
        bytes[HOLE] = 1;
        bytes[2 * HOLE + 7] = 1;
        bytes[4 * HOLE + 9] = 1;
        let runs = runs_of_data(&bytes, HOLE)
            .iter()
            .map(|(at, run)| (*at, run.len()))
            .collect::<Vec<_>>();
        assert_eq!(runs, [(HOLE, 2 * HOLE), (4 * HOLE, HOLE)]);
        assert!(runs_of_data(&[0; HOLE], HOLE).is_empty());
    }
}
