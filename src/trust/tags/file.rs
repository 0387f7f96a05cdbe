//! The files of the store.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::error::TagsError;
use crate::trust::{Entry, check};

/// The name of the file of tags.
pub(super) const TAGS: &str = "tags";

/// The names of the logs.
pub(super) const LOGS: [&str; 2] = ["tags.0", "tags.1"];

/// A local file. Calls may come from several threads at the same time.
pub trait StoreFile: Send + Sync {
    /// Fills the buffer with the bytes from `offset` on. What is behind the end of the file is
    /// zeroes.
    ///
    /// # Errors
    /// What the system reports.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes bytes at `offset`; the file grows where it ends before them.
    ///
    /// # Errors
    /// What the system reports.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything durable that was written before this call.
    ///
    /// # Errors
    /// What the system reports.
    fn sync(&self) -> io::Result<()>;
}

/// The files of the store of one volume.
pub struct StoreFiles {
    tags: Box<dyn StoreFile>,
    logs: [Box<dyn StoreFile>; 2],
}

impl StoreFiles {
    /// These files.
    #[must_use]
    pub fn new(tags: Box<dyn StoreFile>, logs: [Box<dyn StoreFile>; 2]) -> Self {
        Self { tags, logs }
    }

    /// The file of tags.
    pub(super) fn tags(&self) -> Named<'_> {
        Named(TAGS, &*self.tags)
    }

    /// The log with this number, 0 or 1.
    pub(super) fn log(&self, number: usize) -> Named<'_> {
        let [first, second] = &self.logs;
        match number {
            0 => Named(LOGS[0], &**first),
            _ => Named(LOGS[1], &**second),
        }
    }
}

/// A file with its name, which its errors have.
#[derive(Clone, Copy)]
pub(super) struct Named<'a>(&'static str, &'a dyn StoreFile);

impl Named<'_> {
    pub(super) fn read_at(self, offset: u64, into: &mut [u8]) -> Result<(), TagsError> {
        self.1
            .read_at(offset, into)
            .map_err(|error| self.failed(error))
    }

    pub(super) fn write_at(self, offset: u64, bytes: &[u8]) -> Result<(), TagsError> {
        self.1
            .write_at(offset, bytes)
            .map_err(|error| self.failed(error))
    }

    pub(super) fn sync(self) -> Result<(), TagsError> {
        self.1.sync().map_err(|error| self.failed(error))
    }

    fn failed(self, source: io::Error) -> TagsError {
        TagsError::File {
            name: self.0,
            source,
        }
    }
}

/// What is done with the files of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They are made, where they are missing.
    Make,
    /// They are read and written.
    Write,
    /// They are read. Several processes can do so at the same time.
    Read,
}

impl StoreFiles {
    /// Opens the files of a volume of which something is kept. `None` if it has no tags.
    ///
    /// # Errors
    /// [`TagsError::Busy`] if another process uses them, and [`TagsError::File`], also if one of
    /// them is missing: a volume must not lose its protection by that.
    pub fn open(entry: &Entry, access: Access) -> Result<Option<Self>, TagsError> {
        let failed = |name| move |source| TagsError::File { name, source };
        let Some(tags) = open(entry, TAGS, access).map_err(failed(TAGS))? else {
            for log in LOGS {
                if open(entry, log, access).map_err(failed(log))?.is_some() {
                    return Err(failed(TAGS)(ErrorKind::NotFound.into()));
                }
            }
            return Ok(None);
        };
        let kind = match access {
            Access::Read => FlockOperation::NonBlockingLockShared,
            Access::Make | Access::Write => FlockOperation::NonBlockingLockExclusive,
        };
        match flock(&tags.0, kind) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(TagsError::Busy),
            Err(error) => return Err(failed(TAGS)(error.into())),
        }
        let log = |name| match open(entry, name, access).map_err(failed(name))? {
            Some(file) => Ok(Box::new(file) as Box<dyn StoreFile>),
            None => Err(failed(name)(ErrorKind::NotFound.into())),
        };
        let logs = [log(LOGS[0])?, log(LOGS[1])?];
        if access == Access::Make {
            entry.folder().sync().map_err(failed(TAGS))?;
        }
        Ok(Some(Self::new(Box::new(tags), logs)))
    }
}

fn open(entry: &Entry, name: &str, access: Access) -> io::Result<Option<Local>> {
    let (folder, name) = (entry.folder(), OsStr::new(name));
    let opened = match access {
        Access::Make => folder.open_or_create(name),
        Access::Write => folder.open_file(name, OFlags::RDWR),
        Access::Read => folder.open_file(name, OFlags::RDONLY),
    };
    match opened {
        Ok(file) => {
            check(&file)?;
            Ok(Some(Local(file)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file in the folder of a volume.
struct Local(File);

/// A child of this process may have the descriptor until it runs another program, so the lock is
/// given up, and not only the descriptor closed.
impl Drop for Local {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl StoreFile for Local {
    fn read_at(&self, mut offset: u64, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            match std::os::unix::fs::FileExt::read_at(&self.0, into, offset) {
                Ok(0) => {
                    into.fill(0);
                    break;
                }
                Ok(length) => {
                    into = into.get_mut(length..).unwrap_or_default();
                    offset += length as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
