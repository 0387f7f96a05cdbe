//! The folder of the state, and the folder of each volume in it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use uuid::Uuid;

use super::error::TrustError;
use crate::sys::folder::{Folder, Owners};

/// How long a process waits for the lock of another one, which has it for a change of a header.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time between two tries.
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// The folder of the state, opened once. It belongs to this user, and no other user can enter it.
/// No other user can replace a folder on the way to it.
#[derive(Clone, Debug)]
pub struct TrustDir {
    path: PathBuf,
    opened: Arc<Result<Folder, (ErrorKind, String)>>,
}

/// What is kept of one volume: a folder in a [`TrustDir`], whose name is the UUID.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(super) folder: Folder,
    uuid: String,
}

/// While this exists, no other process has the same lock.
#[derive(Debug)]
pub struct Lock(File);

impl TrustDir {
    /// Opens the folder at this path now. A failure is reported where it is used first.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self::new(path, open(path))
    }

    /// Opens the folder at this path, and makes it if nothing has the name.
    ///
    /// # Errors
    /// [`TrustError::Dir`].
    pub fn make(path: &Path) -> Result<Self, TrustError> {
        let made = open_or_make(path);
        let made = Self::new(path, made);
        made.folder()?;
        Ok(made)
    }

    fn new(path: &Path, opened: io::Result<Folder>) -> Self {
        Self {
            path: path.to_owned(),
            opened: Arc::new(opened.map_err(|error| (error.kind(), error.to_string()))),
        }
    }

    /// The path that was opened, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn folder(&self) -> Result<&Folder, TrustError> {
        self.opened
            .as_ref()
            .as_ref()
            .map_err(|(kind, message)| self.failed(io::Error::new(*kind, message.clone())))
    }

    fn failed(&self, source: io::Error) -> TrustError {
        let dir = self.path.display().to_string();
        TrustError::Dir { dir, source }
    }

    /// What is kept of the volume with this UUID, if there is something.
    ///
    /// # Errors
    /// [`TrustError::Uuid`], and [`TrustError::Dir`] for a folder that is not this user's own.
    pub fn entry(&self, uuid: &str) -> Result<Option<Entry>, TrustError> {
        let (uuid, folder) = (canonical(uuid)?, self.folder()?);
        match folder.step(OsStr::new(&uuid)).and_then(checked) {
            Ok(folder) => Ok(Some(Entry { folder, uuid })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => {
                let dir = self.path.join(&uuid).display().to_string();
                Err(TrustError::Dir { dir, source })
            }
        }
    }

    /// As [`entry`](Self::entry), and makes the folder if there is none. Its name is durable.
    ///
    /// # Errors
    /// Those of [`entry`](Self::entry).
    pub fn make_entry(&self, uuid: &str) -> Result<Entry, TrustError> {
        let name = canonical(uuid)?;
        let folder = self.folder()?;
        match folder.make_private(OsStr::new(&name)) {
            Ok(_) => folder.sync().map_err(|error| self.failed(error))?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(self.failed(error)),
        }
        let made = self.entry(uuid)?;
        made.ok_or_else(|| self.failed(ErrorKind::NotFound.into()))
    }

    /// The UUIDs of all volumes of which something is kept, in order.
    ///
    /// # Errors
    /// [`TrustError::Dir`].
    pub fn uuids(&self) -> Result<Vec<String>, TrustError> {
        let names = self.folder()?.names().map_err(|error| self.failed(error))?;
        let names = names.into_iter().filter_map(|name| name.into_string().ok());
        let is_uuid = |name: &String| canonical(name).is_ok_and(|uuid| uuid == *name);
        let mut uuids: Vec<_> = names.filter(is_uuid).collect();
        uuids.sort();
        Ok(uuids)
    }
}

impl Entry {
    /// The UUID of the volume.
    #[must_use]
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    fn failed(&self, name: &str, source: io::Error) -> TrustError {
        let path = self.folder.path().join(name);
        let dir = path.display().to_string();
        TrustError::Dir { dir, source }
    }

    /// The bytes of the file with this name, if there is one. A longer one than `most` is an error.
    pub(crate) fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, TrustError> {
        let read = || {
            let file = match self.folder.open_file(OsStr::new(name), OFlags::RDONLY) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                file => file?,
            };
            check(&file)?;
            let mut bytes = Vec::new();
            file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
            match bytes.len() as u64 > most {
                true => Err(io::Error::new(ErrorKind::InvalidData, "it is too long")),
                false => Ok(Some(bytes)),
            }
        };
        read().map_err(|error| self.failed(name, error))
    }

    /// Replaces the file with this name: after a crash it is the old one or the new one as a whole,
    /// and after this call it is the new one. The caller has a lock.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), TrustError> {
        let replace = || {
            let new = OsString::from(format!("{name}.new"));
            // One that a killed process has left.
            match self.folder.remove(&new) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = self.folder.create_new(&new, OFlags::empty())?;
            file.write_all(bytes)?;
            file.sync_all()?;
            self.folder
                .move_over(&new, &self.folder, OsStr::new(name))?;
            self.folder.sync()
        };
        replace().map_err(|error| self.failed(name, error))
    }

    /// Takes the lock with this name, and waits a few seconds for another process that has it.
    ///
    /// # Errors
    /// [`TrustError::Busy`] if the other process keeps it, and [`TrustError::Dir`].
    pub fn lock(&self, name: &str) -> Result<Lock, TrustError> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(lock) = self.try_lock(name)? {
                return Ok(lock);
            }
            if Instant::now() >= end {
                return Err(TrustError::Busy {
                    uuid: self.uuid.clone(),
                });
            }
            std::thread::sleep(BETWEEN_TRIES);
        }
    }

    /// Takes the lock with this name. `None` if another process has it.
    ///
    /// # Errors
    /// [`TrustError::Dir`].
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>, TrustError> {
        let take = || {
            let file = self.folder.open_or_create(OsStr::new(name))?;
            check(&file)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Some(Lock(file))),
                Err(Errno::WOULDBLOCK) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        take().map_err(|error| self.failed(name, error))
    }
}

/// A child of this process may have the descriptor until it runs another program, so the lock is
/// given up, and not only the descriptor closed.
impl Drop for Lock {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// The text of a UUID as it is a name here: lower case with hyphens. A header can state any text.
fn canonical(uuid: &str) -> Result<String, TrustError> {
    let parsed = Uuid::try_parse(uuid).map(|parsed| parsed.hyphenated().to_string());
    match parsed {
        Ok(name) if name.eq_ignore_ascii_case(uuid) => Ok(name),
        _ => Err(TrustError::Uuid),
    }
}

fn open(path: &Path) -> io::Result<Folder> {
    let (folder, name) = Folder::resolve_trusted(&whole(path)?, Owners::RootOrUs)?;
    checked(folder.step(&name)?)
}

fn open_or_make(path: &Path) -> io::Result<Folder> {
    match open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return opened,
    }
    let path = whole(path)?;
    if let Some(parent) = path.parent() {
        Folder::open_or_make(parent, Mode::RWXU)?;
    }
    let (folder, name) = Folder::resolve_trusted(&path, Owners::RootOrUs)?;
    let made = folder.make_private(&name)?;
    folder.sync()?;
    checked(made)
}

/// The path without `/`, `.` and `..` at its end, where a name has to be.
fn whole(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match path.file_name() {
        Some(_) => Ok(path.components().collect()),
        None => std::fs::canonicalize(path),
    }
}

/// The folder, if it belongs to this user, and no other user can enter it.
fn checked(folder: Folder) -> io::Result<Folder> {
    let about = folder.about()?;
    own(about.uid(), about.mode())?;
    Ok(folder)
}

/// Fails unless a file in such a folder is a regular one of this user with one name.
pub(crate) fn check(file: &File) -> io::Result<()> {
    let about = file.metadata()?;
    own(about.uid(), about.mode())?;
    match about.is_file() && about.nlink() == 1 {
        true => Ok(()),
        false => Err(io::Error::other("it is no regular file with one name")),
    }
}

fn own(owner: u32, mode: u32) -> io::Result<()> {
    let message = if owner != rustix::process::geteuid().as_raw() {
        format!("it belongs to user {owner}")
    } else if mode & 0o077 != 0 {
        format!("its mode is {:03o}, which admits other users", mode & 0o777)
    } else {
        return Ok(());
    };
    Err(io::Error::new(ErrorKind::PermissionDenied, message))
}
