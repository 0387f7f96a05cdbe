//! The journal of a rotation: the keyslots and secrets that it uses, and the stage that it has
//! reached. It contains nothing secret. There is one file for each secret that is being rotated. It
//! is replaced as a whole and synced before each step that it describes.
//!
//! A keyslot is not known by its number: another program may have removed it and put another
//! passphrase into a keyslot of that number. So the journal also has its [`Mark`].
//!
//! A rotation does to secrets and volumes what its journal says. So a journal is trusted only if it
//! and its folder belong to root or to this user, and no other user can write to them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::RotateError;
use super::mark::Mark;
use crate::sys::folder::{Folder, check_trusted, same_file};
use crate::task::destination::Destination;
use crate::task::new_file::NewFile;
use crate::task::{Advice, Error, Kind, Watch};

/// The stage that a rotation has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// Keyslots for the new passphrase are being made. The secret has the old value.
    Adding,
    /// Every volume opens with both passphrases. The secret may have either value.
    Setting,
    /// The secret has the new value. The old keyslots are being removed.
    Removing,
}

/// The content of a journal.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    /// The secret.
    pub(super) secret: Uuid,
    /// The secret that keeps the new value while keyslots for it are made, and from then on the old
    /// value.
    pub(super) kept: Uuid,
    pub(super) stage: Stage,
    pub(super) volumes: Vec<Slots>,
    /// Some of the old keyslots do not have the old value, but earlier ones.
    #[serde(default)]
    pub(super) carries: bool,
}

impl Journal {
    /// The journal of a rotation that is about to begin, with no keyslots yet.
    pub(super) fn new<'a>(secret: Uuid, places: impl Iterator<Item = &'a String>) -> Self {
        let empty = |place: &String| Slots {
            place: place.clone(),
            ..Slots::default()
        };
        Self {
            secret,
            kept: Uuid::new_v4(),
            stage: Stage::Adding,
            volumes: places.map(empty).collect(),
            carries: false,
        }
    }
}

/// The keyslots of one volume.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Slots {
    /// The volume.
    pub(super) place: String,
    /// Its LUKS UUID.
    pub(super) uuid: String,
    /// The keyslot for the new passphrase.
    pub(super) new: u32,
    /// The keyslots that are removed when the secret has the new value.
    pub(super) old: Vec<u32>,
    /// What tells these keyslots from others with their numbers. A journal of an earlier version
    /// has none.
    #[serde(default)]
    pub(super) marks: BTreeMap<u32, Mark>,
}

/// The largest journal that is read, in bytes: some 100,000 volumes of one secret.
const LARGEST: u64 = 32 << 20;

/// The file of a secret's journal. While this exists, no other process rotates the secret.
pub(super) struct Place {
    folder: Folder,
    name: OsString,
    path: PathBuf,
    lock: File,
    lock_name: OsString,
}

/// Whether a rotation of this secret was begun and is not complete.
pub(super) fn is_unfinished(directory: &Path, secret: &Uuid) -> bool {
    let found = Folder::open(directory).and_then(|folder| {
        folder.check_trusted()?;
        folder.look(&journal_name(secret))
    });
    matches!(found, Ok(Some(_)))
}

fn journal_name(secret: &Uuid) -> OsString {
    format!("rotate-{secret}.json").into()
}

impl Place {
    /// Locks the journal of a secret. The directory is made if it does not exist.
    pub(super) fn take(directory: &Path, secret: &Uuid) -> Result<Self, Error> {
        let folder = Folder::open_or_make(directory, Mode::RWXU)
            .map_err(|error| Error::io("create", directory, error))?;
        folder
            .check_trusted()
            .map_err(|error| not_believed(directory, error))?;
        let lock_name = OsString::from(format!("rotate-{secret}.lock"));
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
                Err(Errno::WOULDBLOCK) => return Err(RotateError::Locked.into()),
                Err(error) => return Err(failed(error.into())),
            }
            // A process removes the file at its end, and a lock on a removed file is useless.
            let named = folder.look(&lock_name).map_err(failed)?;
            if named.is_some_and(|named| same_file(&named, &about)) {
                break lock;
            }
        };
        let name = journal_name(secret);
        Ok(Self {
            path: directory.join(&name),
            folder,
            name,
            lock,
            lock_name,
        })
    }

    /// The journal of an interrupted rotation, if there is one.
    pub(super) fn read(&self) -> Result<Option<Journal>, Error> {
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
            RotateError::Journal { path, source }.into()
        })
    }

    /// Replaces the journal durably.
    pub(super) fn write(&self, journal: &Journal, watch: &dyn Watch) -> Result<(), Error> {
        let text =
            serde_json::to_vec_pretty(journal).map_err(|error| Error::new(Kind::Storage, error))?;
        let (folder, name) = (self.folder.clone(), self.name.clone());
        let file = NewFile::at(Destination::within(folder, name, &self.path)?, watch)?;
        file.write(&text)?;
        file.keep()?;
        Ok(())
    }

    /// Removes the journal of a complete rotation durably.
    pub(super) fn clear(&self) -> Result<(), Error> {
        self.folder
            .remove(&self.name)
            .and_then(|()| self.folder.sync())
            .map_err(|error| Error::io("remove", &self.path, error))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays is locked and removed by the next rotation.
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

    const SECRET: Uuid = Uuid::from_u128(7);

    fn journal() -> Journal {
        Journal {
            secret: SECRET,
            kept: Uuid::from_u128(8),
            stage: Stage::Adding,
            volumes: Vec::new(),
            carries: false,
        }
    }

    fn files(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let mut names: Vec<_> = names
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_journal_of_an_earlier_version_has_no_marks() {
        let text = r#"{"secret": "6c1f3c1e-4c22-4e8c-8a0e-4f7a5d0f9a11",
            "kept": "6c1f3c1e-4c22-4e8c-8a0e-4f7a5d0f9a12", "stage": "removing",
            "volumes": [{"place": "/v", "uuid": "u", "new": 7, "old": [0, 1]}]}"#;
        let read: Journal = serde_json::from_str(text).unwrap();
        let slots = &read.volumes[0];
        assert_eq!((slots.new, &slots.old[..]), (7, &[0, 1][..]));
        assert!(slots.marks.is_empty());
    }

    #[test]
    fn a_journal_stays_until_it_is_cleared_and_the_lock_does_not() {
        let all = tempfile::tempdir().unwrap();
        let folder = all.path().join("state/luksmith");
        let place = Place::take(&folder, &SECRET).unwrap();
        let locked = Place::take(&folder, &SECRET).err().unwrap();
        assert_eq!(locked.kind(), Kind::Busy);
        for _ in 0..2 {
            place.write(&journal(), &Silent::default()).unwrap();
        }
        drop(place);
        let name = format!("rotate-{SECRET}.json");
        assert_eq!(files(&folder), [name]);
        assert!(is_unfinished(&folder, &SECRET));

        let place = Place::take(&folder, &SECRET).unwrap();
        let read = place.read().unwrap().unwrap();
        assert_eq!((read.secret, read.stage), (SECRET, Stage::Adding));
        place.clear().unwrap();
        assert!(place.read().unwrap().is_none());
        drop(place);
        assert!(files(&folder).is_empty());
        assert!(!is_unfinished(&folder, &SECRET));
    }

    #[test]
    fn a_journal_that_others_could_have_written_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |place: Result<Place, Error>| {
            let read = place.and_then(|place| place.read());
            let error = read.err().unwrap();
            assert_eq!(error.kind(), Kind::Permission, "{}", error.line());
            assert_eq!(error.advice(), [Advice::OtherJournals]);
        };
        let take = || Place::take(folder.path(), &SECRET);
        take()
            .unwrap()
            .write(&journal(), &Silent::default())
            .unwrap();
        let file = folder.path().join(format!("rotate-{SECRET}.json"));
        fs::set_permissions(&file, PermissionsExt::from_mode(0o660)).unwrap();
        refused(take());
        fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(take().unwrap().read().unwrap().is_some());
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o1777)).unwrap();
        refused(take());
        assert!(!is_unfinished(folder.path(), &SECRET));
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        // Only root can give files away.
        if rustix::process::geteuid().is_root() {
            lchown(&file, Some(65534), None).unwrap();
            refused(take());
            lchown(folder.path(), Some(65534), None).unwrap();
            refused(take());
            assert!(!is_unfinished(folder.path(), &SECRET));
        }
    }

    #[test]
    fn a_lock_is_not_made_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join(format!("rotate-{SECRET}.lock"));
        symlink(folder.path().join("made"), &lock).unwrap();
        assert!(Place::take(folder.path(), &SECRET).is_err());
        assert!(!folder.path().join("made").exists());
        assert!(lock.is_symlink());
    }
}
