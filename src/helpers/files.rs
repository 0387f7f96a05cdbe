//! Values in the files of one folder, each replaced as a whole. A lock makes the comparison with
//! the expected revision and the replacement one step.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::failure::Failure;
use crate::secret::{LockedBytes, MAX_KEY_FILE};
use crate::sys::folder::{Folder, Owners};

/// The file that is locked while a value is replaced.
const LOCK: &str = ".luksmith-lock";

/// The longest name of a value, in bytes: that of an unfinished file is longer.
const LONGEST_NAME: usize = 200;

/// A folder of values. It and all folders above it belong to root or to this user, and no other
/// user can write to them.
pub(super) struct Files {
    folder: Folder,
    path: PathBuf,
}

impl Files {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let opened = Folder::resolve_trusted(&path.join(LOCK), Owners::RootOrUs);
        let (folder, _) = opened.map_err(|error| Failure::io(path.display(), &error))?;
        let path = path.to_owned();
        Ok(Self { folder, path })
    }

    /// The name of the file of a reference.
    pub(super) fn name(reference: &str) -> Result<&OsStr, Failure> {
        let plain = !reference.starts_with('.') && !reference.contains('/');
        if reference.is_empty() || !plain || reference.len() > LONGEST_NAME {
            return Err(Failure::not_accepted(
                "the reference is the name of a file: at most 200 bytes, no '/', no '.' at the \
                 beginning",
            ));
        }
        Ok(OsStr::new(reference))
    }

    /// The bytes of a value, and its revision.
    pub(super) fn read(&self, name: &OsStr) -> Result<(LockedBytes, String), Failure> {
        let failed = |error: &io::Error| self.failed(name, error);
        let mut file = match self.folder.open_file(name, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::no_value());
            }
            file => file.map_err(|error| failed(&error))?,
        };
        let about = file.metadata().map_err(|error| failed(&error))?;
        let path = self.path.join(name);
        if !about.is_file() {
            return Err(Failure::other(format!(
                "{}: no regular file",
                path.display()
            )));
        }
        let trusted = Owners::RootOrUs.check(&path, &about);
        trusted.map_err(|error| failed(&error))?;
        if about.mode() & 0o077 != 0 {
            let message = format!("{}: other users can read it", path.display());
            return Err(Failure::denied(message));
        }
        let len = usize::try_from(about.len()).unwrap_or(usize::MAX);
        if len > MAX_KEY_FILE * 2 {
            return Err(Failure::other(format!("{}: too large", path.display())));
        }
        let mut bytes = LockedBytes::new(len).map_err(Failure::other)?;
        file.read_exact(&mut bytes)
            .map_err(|error| failed(&error))?;
        Ok((bytes, revision(&about)))
    }

    /// Replaces the value durably, if the file has this revision. Without one, there has to be no
    /// file if `new` is true, and any file is replaced otherwise.
    pub(super) fn replace(
        &self,
        name: &OsStr,
        bytes: &[u8],
        new: bool,
        revision_before: Option<&str>,
    ) -> Result<(), Failure> {
        let failed = |error: &io::Error| self.failed(name, error);
        let _lock = self.lock()?;
        let found = self.folder.look(name).map_err(|error| failed(&error))?;
        let expected = match (revision_before, &found) {
            (Some(before), Some(found)) => before == revision(found),
            (Some(_), None) => false,
            (None, found) => !new || found.is_none(),
        };
        if !expected {
            return Err(Failure::conflict());
        }
        let part = unfinished(name);
        // What a killed helper has left. Others wait for the lock.
        match self.folder.remove(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&error)),
            _ => {}
        }
        let written = self.write(&part, name, bytes, new);
        if written.is_err() {
            let _ = self.folder.remove(&part);
        }
        written.map_err(|error| failed(&error))
    }

    fn write(&self, part: &OsStr, name: &OsStr, bytes: &[u8], new: bool) -> io::Result<()> {
        let mut file = self.folder.create_new(part, OFlags::empty())?;
        file.write_all(bytes)?;
        file.sync_all()?;
        match new {
            true => self.folder.move_new(part, &self.folder, name)?,
            false => self.folder.move_over(part, &self.folder, name)?,
        }
        self.folder.sync()
    }

    /// Removes the value durably.
    pub(super) fn remove(&self, name: &OsStr) -> Result<(), Failure> {
        let _lock = self.lock()?;
        match self.folder.remove(name).and_then(|()| self.folder.sync()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::no_value()),
            removed => removed.map_err(|error| self.failed(name, &error)),
        }
    }

    /// Fails if no value can be stored here.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let writable = self.folder.check_writable();
        writable.map_err(|error| Failure::io(self.path.display(), &error))
    }

    /// Waits until no other process replaces a value here. The caller of a helper limits the time.
    fn lock(&self) -> Result<File, Failure> {
        let lock = self.folder.open_or_create(OsStr::new(LOCK));
        let lock = lock.and_then(|lock| {
            rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))?;
            Ok(lock)
        });
        lock.map_err(|error| self.failed(OsStr::new(LOCK), &error))
    }

    fn failed(&self, name: &OsStr, error: &io::Error) -> Failure {
        Failure::io(self.path.join(name).display(), error)
    }
}

fn unfinished(name: &OsStr) -> OsString {
    let mut part = OsString::from(".luksmith-part-");
    part.push(name);
    part
}

/// Which file it is, and when it was last changed. It says nothing about the secret in it.
fn revision(about: &Metadata) -> String {
    let (seconds, rest) = (about.ctime(), about.ctime_nsec());
    format!("{}-{}-{seconds}.{rest:09}", about.dev(), about.ino())
}
