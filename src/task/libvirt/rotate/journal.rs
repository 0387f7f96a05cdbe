//! The journal of a rotation: the keyslots and secrets that it uses, and the stage that it has
//! reached. It contains nothing secret. There is one file for each secret that is being rotated. It
//! is replaced as a whole and synced before each step that it describes.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::RotateError;
use crate::task::new_file::NewFile;
use crate::task::{Error, Kind, Watch};

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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Journal {
    /// The secret.
    pub(super) secret: Uuid,
    /// The secret that keeps the old value until the rotation is complete.
    pub(super) kept: Uuid,
    pub(super) stage: Stage,
    pub(super) volumes: Vec<Slots>,
}

/// The keyslots of one volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Slots {
    /// The volume.
    pub(super) place: String,
    /// Its LUKS UUID.
    pub(super) uuid: String,
    /// The keyslot for the new passphrase.
    pub(super) new: u32,
    /// The keyslots that are removed when the secret has the new value.
    pub(super) old: Vec<u32>,
}

/// The file of a secret's journal. While this exists, no other process rotates the secret.
pub(super) struct Place {
    path: PathBuf,
    _lock: File,
}

/// Whether a rotation of this secret was begun and is not complete.
pub(super) fn is_unfinished(directory: &Path, secret: &Uuid) -> bool {
    file_of(directory, secret).exists()
}

fn file_of(directory: &Path, secret: &Uuid) -> PathBuf {
    directory.join(format!("rotate-{secret}.json"))
}

impl Place {
    /// Locks the journal of a secret. The directory is made if it does not exist.
    pub(super) fn take(directory: &Path, secret: &Uuid) -> Result<Self, Error> {
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700);
        make.create(directory)
            .map_err(|error| Error::io("create", directory, error))?;
        let lock = directory.join(format!("rotate-{secret}.lock"));
        let mut open = OpenOptions::new();
        let open = open
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock);
        let held = open.map_err(|error| Error::io("open", &lock, error))?;
        match flock(&held, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(RotateError::Locked.into()),
            Err(error) => return Err(Error::io("lock", &lock, error.into())),
        }
        Ok(Self {
            path: file_of(directory, secret),
            _lock: held,
        })
    }

    /// The journal of an interrupted rotation, if there is one.
    pub(super) fn read(&self) -> Result<Option<Journal>, Error> {
        let text = match std::fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| Error::io("read", &self.path, error))?,
        };
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
        let file = NewFile::create(&self.path, self.path.exists(), watch)?;
        file.write(&text)?;
        file.keep()
    }

    /// Removes the journal of a complete rotation durably.
    pub(super) fn clear(&self) -> Result<(), Error> {
        let removed = std::fs::remove_file(&self.path);
        let directory = self.path.parent().unwrap_or(Path::new("."));
        removed
            .and_then(|()| File::open(directory)?.sync_all())
            .map_err(|error| Error::io("remove", &self.path, error))
    }
}
