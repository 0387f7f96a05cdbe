//! The file over which a volume is mounted.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::refused::refused;
use super::users;
use crate::sys::folder::Folder;
use crate::sys::fuse::{self, HelperError};
use crate::sys::mounts::{Mount, mounts};
use crate::task::destination::{Destination, Present};
use crate::task::{Advice, Error, Kind, MadeFile};

/// Where a volume is to be mounted: an empty file, or a name that nothing has.
#[derive(Debug, Clone)]
pub struct MountPoint {
    destination: Destination,
    pub(super) folder: Folder,
    pub(super) name: OsString,
}

impl MountPoint {
    /// Looks at a path. It is followed by the rules for files that are written.
    ///
    /// # Errors
    /// [`Kind::Exists`] for a file with content, which would be hidden, [`Kind::Busy`] if a file
    /// system is mounted there, [`Kind::Storage`] for anything but a file, and failed system calls.
    pub fn look(path: &Path) -> Result<Self, Error> {
        let destination = Destination::look(path);
        let destination = destination
            .and_then(Destination::into_file)
            .map_err(|error| {
                let system = error.cause().downcast_ref::<io::Error>();
                match system.and_then(Errno::from_io_error) {
                    Some(Errno::NOTCONN) => dead(path),
                    _ => error,
                }
            })?;
        let (folder, name) = (destination.folder().clone(), destination.name().to_owned());
        if Point::of(folder.clone(), name.clone())?.mount()?.is_some() {
            let message = format!("something is mounted at {}", path.display());
            return Err(Error::new(Kind::Busy, message));
        }
        if let Present::File { size: 1.. } = destination.present() {
            let message = format!("{} has content, which would be hidden", path.display());
            return Err(Error::new(Kind::Exists, message).advise(Advice::EmptyMountPoint));
        }
        Ok(Self {
            destination,
            folder,
            name,
        })
    }

    /// Opens the file and locks it. Makes it if nothing has the name.
    pub(super) fn hold(&self) -> Result<(File, Option<MadeFile>), Error> {
        let path = self.destination.path();
        let (file, made) = match self.destination.present() {
            Present::Nothing => {
                let make = || {
                    let file = self.folder.create_new(&self.name, OFlags::empty())?;
                    let about = file.metadata()?;
                    let made = MadeFile::find(self.folder.clone(), self.name.clone(), &about)?;
                    Ok((file, Some(made)))
                };
                make().map_err(|error| Error::io("make", path, error))?
            }
            _ => (self.destination.open()?, None),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok((file, made)),
            Err(Errno::WOULDBLOCK) => {
                let message = format!("another program is about to mount at {}", path.display());
                Err(Error::new(Kind::Busy, message))
            }
            Err(error) => Err(Error::io("lock", path, error.into())),
        }
    }
}

/// The error for a file whose program has ended without unmounting it.
fn dead(path: &Path) -> Error {
    let message = format!(
        "{} is still mounted, and its program has ended",
        path.display()
    );
    Error::new(Kind::Busy, message).advise(Advice::Unmount(path.to_owned()))
}

/// A name in a folder, over which something may be mounted.
#[derive(Debug)]
pub(super) struct Point {
    folder: Folder,
    name: OsString,
    path: PathBuf,
}

impl Point {
    pub(super) fn of(folder: Folder, name: OsString) -> Result<Self, Error> {
        let now = folder.path_now();
        let now = now.map_err(|error| Error::io("look at", folder.path(), error))?;
        let path = now.join(&name);
        Ok(Self { folder, name, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is mounted there.
    pub(super) fn mount(&self) -> Result<Option<Mount>, Error> {
        let all =
            mounts().map_err(|error| Error::io("read", Path::new("/proc/self/mountinfo"), error));
        Ok(all?.into_iter().rfind(|mount| mount.point == self.path))
    }

    /// Opens the file that has the name.
    pub(super) fn open(&self) -> io::Result<File> {
        self.folder.open_file(&self.name, OFlags::RDONLY)
    }

    pub(super) fn unmount(&self, lazy: bool) -> Result<(), HelperError> {
        fuse::unmount(&self.folder, &self.name, lazy)
    }

    /// The volume that has been mounted there.
    pub(super) fn attached(self) -> Result<Attached, Error> {
        // The helper follows the path anew, so another file may have been there.
        match self.mount()? {
            Some(mount) if mount.kind == fuse::KIND.as_bytes() => {
                Ok(Attached { point: self, mount })
            }
            _ => {
                let message = format!("{} was replaced meanwhile", self.path.display());
                Err(Error::new(Kind::Busy, message))
            }
        }
    }
}

/// How unmounting ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detached {
    /// The file is no longer mounted.
    Wholly,
    /// It has lost its name, and is served until these users have closed it.
    InUse(Vec<String>),
}

/// A volume that is mounted. Dropping this unmounts it.
#[derive(Debug)]
pub(super) struct Attached {
    point: Point,
    mount: Mount,
}

impl Attached {
    pub(super) fn path(&self) -> &Path {
        self.point.path()
    }

    fn is_mounted(&self) -> bool {
        let found = self.point.mount();
        found.is_ok_and(|found| found.is_some_and(|found| found.id == self.mount.id))
    }

    /// Unmounts the file. If it is in use, it only loses its name.
    pub(super) fn detach(&self) -> Result<Detached, Error> {
        if !self.is_mounted() {
            return Ok(Detached::Wholly);
        }
        let failed = |error| refused(error, "unmount", self.path());
        match self.point.unmount(false) {
            Ok(()) => Ok(Detached::Wholly),
            Err(error) if error.is_busy() => {
                let users = users::of(self.path());
                self.point.unmount(true).map_err(failed)?;
                Ok(Detached::InUse(users))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.is_mounted() {
            // What fails leaves a file that does not answer, and can be unmounted.
            let _ = self.point.unmount(true);
        }
    }
}
