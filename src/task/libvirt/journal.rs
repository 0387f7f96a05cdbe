//! The journal of a task that another run completes after an interruption. It contains nothing
//! secret. It is replaced as a whole and synced before each step that it describes.
//!
//! A task does to secrets and volumes what its journal says. So a journal is trusted only if it and
//! its folder belong to root or to this user, and no other user can write to them.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::folder::{Folder, check_trusted, same_file};
use crate::task::destination::Destination;
use crate::task::new_file::NewFile;
use crate::task::{Advice, Error, Kind, Watch};

/// The journal of an interrupted task cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the journal {path} is damaged")]
#[non_exhaustive]
pub struct DamagedJournal {
    /// The file.
    pub path: String,
    /// What is wrong with it.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl From<DamagedJournal> for Error {
    fn from(error: DamagedJournal) -> Self {
        Self::new(Kind::Damaged, error)
    }
}

/// The largest journal that is read, in bytes: some 100,000 volumes of one secret.
const LARGEST: u64 = 32 << 20;

/// The file of a journal. While this exists, no other process has this journal.
pub(super) struct Place {
    folder: Folder,
    name: OsString,
    path: PathBuf,
    lock: File,
    lock_name: OsString,
}

/// Whether the task of this journal was begun and is not complete.
pub(super) fn is_unfinished(directory: &Path, name: &str) -> bool {
    let found = Folder::open(directory).and_then(|folder| {
        folder.check_trusted()?;
        folder.look(&file_name(name))
    });
    matches!(found, Ok(Some(_)))
}

fn file_name(name: &str) -> OsString {
    format!("{name}.json").into()
}

impl Place {
    /// Locks the journal with this name. The directory is made if it does not exist. `None` if
    /// another process has locked the journal.
    pub(super) fn take(directory: &Path, name: &str) -> Result<Option<Self>, Error> {
        let folder = Folder::open_or_make(directory, Mode::RWXU)
            .map_err(|error| Error::io("create", directory, error))?;
        folder
            .check_trusted()
            .map_err(|error| not_believed(directory, error))?;
        let lock_name = OsString::from(format!("{name}.lock"));
        let path = directory.join(&lock_name);
        let lock = loop {
            let lock = folder
                .open_or_create(&lock_name)
                .map_err(|error| Error::io("open", &path, error))?;
            let failed = |error| Error::io("lock", &path, error);
            let about = lock.metadata().map_err(failed)?;
            check_trusted(&path, &about).map_err(|error| not_believed(directory, error))?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(failed(error.into())),
            }
            // A process removes the file at its end, and a lock on a removed file is useless.
            let named = folder.look(&lock_name).map_err(failed)?;
            if named.is_some_and(|named| same_file(&named, &about)) {
                break lock;
            }
        };
        let name = file_name(name);
        Ok(Some(Self {
            path: directory.join(&name),
            folder,
            name,
            lock,
            lock_name,
        }))
    }

    /// The journal of an interrupted task, if there is one.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let failed = |error| Error::io("read", &self.path, error);
        let file = match self.folder.open_file(&self.name, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let about = file.metadata().map_err(failed)?;
        check_trusted(&self.path, &about)
            .map_err(|error| not_believed(self.folder.path(), error))?;
        let mut text = Vec::new();
        file.take(LARGEST).read_to_end(&mut text).map_err(failed)?;
        serde_json::from_slice(&text).map(Some).map_err(|source| {
            let path = self.path.display().to_string();
            let source = source.into();
            DamagedJournal { path, source }.into()
        })
    }

    /// Replaces the journal durably.
    pub(super) fn write<T: Serialize>(&self, journal: &T, watch: &dyn Watch) -> Result<(), Error> {
        let text =
            serde_json::to_vec_pretty(journal).map_err(|error| Error::new(Kind::Storage, error))?;
        let (folder, name) = (self.folder.clone(), self.name.clone());
        let file = NewFile::at(Destination::within(folder, name, &self.path)?, watch)?;
        file.write(&text)?;
        file.keep()?;
        Ok(())
    }

    /// Removes the journal of a complete task durably.
    pub(super) fn clear(&self) -> Result<(), Error> {
        self.folder
            .remove(&self.name)
            .and_then(|()| self.folder.sync())
            .map_err(|error| Error::io("remove", &self.path, error))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays is locked and removed by the next run.
        if let Ok(about) = self.lock.metadata() {
            let _ = self.folder.remove_if(&self.lock_name, &about);
        }
    }
}

fn not_believed(directory: &Path, error: io::Error) -> Error {
    let directory = directory.display();
    Error::new(Kind::Permission, error)
        .about(format_args!("journals in {directory} are not trusted"))
        .advise(Advice::OtherJournals)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};

    use super::*;
    use crate::task::Silent;

    fn files(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let mut names: Vec<_> = names
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_journal_stays_until_it_is_cleared_and_the_lock_does_not() {
        let all = tempfile::tempdir().unwrap();
        let folder = all.path().join("state/luksmith");
        let place = Place::take(&folder, "task-a").unwrap().unwrap();
        assert!(Place::take(&folder, "task-a").unwrap().is_none());
        for number in [7, 8] {
            place.write(&number, &Silent::default()).unwrap();
        }
        drop(place);
        assert_eq!(files(&folder), ["task-a.json"]);
        assert!(is_unfinished(&folder, "task-a"));

        let place = Place::take(&folder, "task-a").unwrap().unwrap();
        assert_eq!(place.read::<u8>().unwrap(), Some(8));
        let other = place.read::<String>().unwrap_err();
        assert_eq!(other.kind(), Kind::Damaged);
        place.clear().unwrap();
        assert!(place.read::<u8>().unwrap().is_none());
        drop(place);
        assert!(files(&folder).is_empty());
        assert!(!is_unfinished(&folder, "task-a"));
    }

    #[test]
    fn a_journal_that_others_could_have_written_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let take = || Place::take(folder.path(), "task");
        let refused = || {
            let read = take().and_then(|place| place.unwrap().read::<u8>());
            let error = read.err().unwrap();
            assert_eq!(error.kind(), Kind::Permission, "{}", error.line());
            assert_eq!(error.advice(), [Advice::OtherJournals]);
        };
        let first = take().unwrap().unwrap();
        first.write(&1, &Silent::default()).unwrap();
        drop(first);
        let file = folder.path().join("task.json");
        fs::set_permissions(&file, PermissionsExt::from_mode(0o660)).unwrap();
        refused();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(take().unwrap().unwrap().read::<u8>().unwrap(), Some(1));
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o1777)).unwrap();
        refused();
        assert!(!is_unfinished(folder.path(), "task"));
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        // Only root can give files away.
        if rustix::process::geteuid().is_root() {
            lchown(&file, Some(65534), None).unwrap();
            refused();
            lchown(folder.path(), Some(65534), None).unwrap();
            refused();
            assert!(!is_unfinished(folder.path(), "task"));
        }
    }

    #[test]
    fn a_lock_is_not_made_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("task.lock");
        symlink(folder.path().join("made"), &lock).unwrap();
        assert!(Place::take(folder.path(), "task").is_err());
        assert!(!folder.path().join("made").exists());
        assert!(lock.is_symlink());
    }
}
