//! A path to which a task writes, looked at once.
//!
//! The folder is opened when the path is looked at. What the task does at the path later is done in
//! that folder and with the file that was found there, even if another user replaces files
//! meanwhile.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::{Advice, Error, Kind, size};
use crate::sys::folder::{Folder, same_file};

/// What is at a path already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Nothing,
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
    },
    /// A block device.
    BlockDevice,
}

/// The bytes that will be written to a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// Bytes that no file system can compress.
    Ciphertext(u64),
    /// Any bytes.
    Plaintext(u64),
}

/// There is not enough room for a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no room for {}: it takes {}, and {} are missing",
    .path.display(),
    size::human(*needed),
    size::human(*missing)
)]
#[non_exhaustive]
pub struct NoRoom {
    /// The file.
    pub path: PathBuf,
    /// The bytes that will be written.
    pub needed: u64,
    /// How many of them the file system has no room for.
    pub missing: u64,
}

/// A path to which a task writes.
///
/// A symbolic link is followed only if it belongs to root or to the user of this process, and no
/// other user can write to the folder that it is in.
#[derive(Debug, Clone)]
pub struct Destination {
    folder: Folder,
    name: OsString,
    path: PathBuf,
    found: Option<Arc<Found>>,
}

/// What was found at a path. While it is open, no other file gets the number of its inode.
#[derive(Debug)]
struct Found {
    about: Metadata,
    _held: File,
}

impl Destination {
    /// Looks at a path.
    ///
    /// # Errors
    /// [`Kind::Permission`] for a symbolic link of another user, [`Kind::Exists`] for one that
    /// leads to nothing, anything but a regular file or a block device, and failed system calls.
    pub fn look(path: &Path) -> Result<Self, Error> {
        let destination = Self::find(path)?;
        let storage = |found: &Metadata| found.is_file() || found.file_type().is_block_device();
        match destination.about().is_none_or(storage) {
            true => Ok(destination),
            false => Err(not_storage(path)),
        }
    }

    /// Fails if there is anything but a regular file.
    pub(super) fn into_file(self) -> Result<Self, Error> {
        match self.about().is_none_or(Metadata::is_file) {
            true => Ok(self),
            false => Err(not_storage(self.path())),
        }
    }

    /// Looks at a path at which nothing may be.
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let destination = Self::find(path)?;
        match destination.found {
            None => Ok(destination),
            Some(_) => {
                let message = format!("{} exists", path.display());
                Err(Error::new(Kind::Exists, message))
            }
        }
    }

    fn find(path: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let verb = if missing { "create" } else { "look at" };
            // A descriptor of a process, such as /dev/stdout.
            let descriptor = error.kind() == io::ErrorKind::Unsupported;
            Error::io(verb, path, error).advise_if(descriptor, Advice::DashForStdout)
        };
        let (folder, name) = Folder::resolve(path).map_err(|error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let parent = path.parent().unwrap_or(path).to_owned();
            failed(error).advise_if(missing, Advice::MakeDirectory(parent))
        })?;
        let destination = Self::within(folder, name, path)?;
        if destination.found.is_none() && path.is_symlink() {
            let target = destination.folder.path().join(&destination.name);
            let (path, target) = (path.display(), target.display());
            let message = format!("{path} is a symbolic link to {target}, which does not exist");
            return Err(Error::new(Kind::Exists, message));
        }
        Ok(destination)
    }

    /// Looks at a name in an open folder. A symbolic link is not followed.
    pub(super) fn within(folder: Folder, name: OsString, path: &Path) -> Result<Self, Error> {
        let found = match folder.look_open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => file.and_then(|file| {
                let about = file.metadata()?;
                let found = Found { about, _held: file };
                Ok(Some(Arc::new(found)))
            }),
        };
        let found = found.map_err(|error| Error::io("look at", path, error))?;
        Ok(Self {
            folder,
            name,
            path: path.to_owned(),
            found,
        })
    }

    /// What was found there.
    #[must_use]
    pub fn present(&self) -> Present {
        match self.about() {
            None => Present::Nothing,
            Some(found) if found.is_file() => Present::File { size: found.len() },
            Some(_) => Present::BlockDevice,
        }
    }

    /// The path that was looked at.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fails if a new file cannot be made there, as far as that is known before: there is no
    /// permission, or the file system is read-only or has no room for `needed` more bytes.
    ///
    /// # Errors
    /// [`Kind::Permission`], [`Kind::NoSpace`], and failed system calls.
    pub fn check_room(&self, needed: Needed) -> Result<(), Error> {
        self.folder
            .check_writable()
            .map_err(|error| Error::io("create", &self.path, error))?;
        let Some(free) = self.folder.free() else {
            return Ok(());
        };
        let needed = match needed {
            Needed::Ciphertext(bytes) => bytes,
            Needed::Plaintext(bytes) if free.as_they_are => bytes,
            Needed::Plaintext(_) => 0,
        };
        match needed.checked_sub(free.bytes) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(Error::new(
                Kind::NoSpace,
                NoRoom {
                    path: self.path.clone(),
                    needed,
                    missing,
                },
            )),
        }
    }

    /// Whether what was found there is also at another path. A block device may have several names.
    ///
    /// # Errors
    /// Failed system calls.
    pub fn is_also(&self, path: &Path) -> Result<bool, Error> {
        let Some(found) = self.about() else {
            return Ok(false);
        };
        let other = path
            .metadata()
            .map_err(|error| Error::io("look at", path, error))?;
        Ok(match self.present() {
            Present::BlockDevice => {
                other.file_type().is_block_device() && found.rdev() == other.rdev()
            }
            _ => same_file(found, &other),
        })
    }

    /// Opens what was found there, for reading and writing.
    ///
    /// # Errors
    /// [`Kind::Busy`] if something else is there by now, and failed system calls.
    pub fn open(&self) -> Result<File, Error> {
        self.open_found(OFlags::RDWR)
            .map_err(|error| Error::io("open", &self.path, error))
    }

    /// Opens the block device that was found there exclusively. The kernel refuses a device that is
    /// mounted or part of another device, and refuses to mount this one until the file is closed.
    ///
    /// # Errors
    /// [`Kind::Busy`] for a device that is in use.
    pub fn claim(&self) -> Result<File, Error> {
        self.open_found(OFlags::RDONLY | OFlags::EXCL)
            .map_err(|error| {
                let in_use =
                    rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::BUSY);
                let error = Error::io("overwrite", &self.path, error);
                error.advise_if(in_use, Advice::DeviceInUse)
            })
    }

    fn open_found(&self, flags: OFlags) -> io::Result<File> {
        let file = self.folder.open_file(&self.name, flags)?;
        let opened = file.metadata()?;
        if !(self.about()).is_some_and(|found| same_file(found, &opened)) {
            return Err(exchanged());
        }
        // The flag was only for opening.
        let flags = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
        Ok(file)
    }

    /// What a sentence about its replacement adds if the file belongs to another user.
    pub(super) fn other_owner(&self) -> String {
        let us = rustix::process::geteuid().as_raw();
        match self.about().map(Metadata::uid).filter(|owner| *owner != us) {
            Some(owner) => format!("; it belongs to user {owner}, the new file to user {us}"),
            None => String::new(),
        }
    }

    fn about(&self) -> Option<&Metadata> {
        self.found.as_ref().map(|found| &found.about)
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    /// Fails if something else is there now than what was found.
    pub(super) fn check_unchanged(&self) -> io::Result<()> {
        match (self.folder.look(&self.name)?, self.about()) {
            (None, _) => Ok(()),
            (Some(now), Some(found)) if same_file(&now, found) => Ok(()),
            (Some(_), None) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(_), Some(_)) => Err(exchanged()),
        }
    }
}

/// The error for a name that leads to something else than before.
pub(super) fn exchanged() -> io::Error {
    let message = "another program has replaced it";
    io::Error::new(io::ErrorKind::ResourceBusy, message)
}

/// The error for a path that is neither a regular file nor a block device.
pub(super) fn not_storage(path: &Path) -> Error {
    let message = format!("{} is neither a file nor a block device", path.display());
    Error::new(Kind::Storage, message)
}
