//! Where decrypted data goes.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
#[cfg(feature = "nbd")]
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::holes::runs_of_data;
#[cfg(feature = "nbd")]
use crate::backend::nbd::PlainExport;
use crate::task::part::PlainPart;
use crate::task::{Error, Kind};

/// The smallest run of zeroes that a sparse sink leaves out, in bytes.
const HOLE: usize = 4096;

/// Where decrypted data goes. It is no [`Backend`](crate::backend::Backend): a storage of volumes
/// never gets plaintext.
pub struct PlainSink {
    to: To,
    name: PathBuf,
}

enum To {
    Stream(File),
    File {
        file: File,
        sparse: bool,
    },
    Part(PlainPart),
    /// An export, and where the data begins in it.
    #[cfg(feature = "nbd")]
    Export(Box<PlainExport>, u64),
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

    /// A part of a file or a device, which must have `size` bytes at least.
    pub(in crate::task) fn part(part: PlainPart, name: &Path, size: u64) -> Result<Self, Error> {
        check_size(name, part.range.end - part.range.start, size)?;
        Ok(Self {
            to: To::Part(part),
            name: name.to_owned(),
        })
    }

    /// The bytes `range` of an export, which must be `size` bytes at least.
    #[cfg(feature = "nbd")]
    pub(in crate::task) fn export(
        export: PlainExport,
        range: Range<u64>,
        name: &Path,
        size: u64,
    ) -> Result<Self, Error> {
        check_size(name, range.end - range.start, size)?;
        Ok(Self {
            to: To::Export(Box::new(export), range.start),
            name: name.to_owned(),
        })
    }

    /// Whether zeroes are left out.
    pub(in crate::task) fn is_sparse(&self) -> bool {
        matches!(self.to, To::File { sparse: true, .. })
    }

    pub(in crate::task) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
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
            To::Part(part) => part
                .file
                .write_all_at(bytes, part.range.start + offset)
                .map_err(|error| Error::io("write", &self.name, error)),
            #[cfg(feature = "nbd")]
            To::Export(export, start) => export
                .write_at(*start + offset, bytes)
                .map_err(|error| Error::from(error).about(self.name.display())),
        }
    }

    /// Makes everything durable that was written.
    pub(in crate::task) fn finish(self) -> Result<(), Error> {
        match self.to {
            To::Stream(_) => Ok(()),
            To::File { file, .. } | To::Part(PlainPart { file, .. }) => file
                .sync_all()
                .map_err(|error| Error::io("write", &self.name, error)),
            #[cfg(feature = "nbd")]
            To::Export(export, _) => export
                .flush()
                .map_err(|error| Error::from(error).about(self.name.display())),
        }
    }
}

/// Refuses a block device that has fewer than `size` bytes.
pub(in crate::task) fn check_device(file: &mut File, name: &Path, size: u64) -> Result<(), Error> {
    let there = file
        .seek(SeekFrom::End(0))
        .map_err(|error| Error::io("measure", name, error))?;
    check_size(name, there, size)
}

/// Refuses a device or an export that is too small.
pub(in crate::task) fn check_size(name: &Path, there: u64, size: u64) -> Result<(), Error> {
    match there < size {
        true => {
            let message = format!("{} has {there} bytes, the volume {size}", name.display());
            Err(Error::new(Kind::Storage, message))
        }
        false => Ok(()),
    }
}
