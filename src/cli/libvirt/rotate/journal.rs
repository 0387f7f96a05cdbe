//! What a rotation has begun: numbers of keyslots and names of secrets, and nothing secret. One file for each secret whose value is being
//! rotated, written whole and synced before the step that it tells of.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use luksmith::task::Watch;
use luksmith::task::new_file::NewFile;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cli::error::{CommandError, Kind, failed};

/// How far a rotation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// Keyslots for the new passphrase are being made; the secret has the old one.
    Adding,
    /// Every volume opens by both; the secret may have either.
    Setting,
    /// The secret has the new one; old keyslots are being removed.
    Removing,
}

/// What a rotation has begun.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Journal {
    /// The secret.
    pub(super) secret: Uuid,
    /// The secret that keeps the old passphrase meanwhile.
    pub(super) kept: Uuid,
    pub(super) stage: Stage,
    pub(super) volumes: Vec<Slots>,
}

/// The keyslots of one volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Slots {
    /// Where it lies.
    pub(super) place: String,
    /// Its LUKS UUID.
    pub(super) uuid: String,
    /// The number for the new passphrase.
    pub(super) new: u32,
    /// The numbers that go when the secret has the new passphrase.
    pub(super) old: Vec<u32>,
}

/// Where journals are. Nobody else works on the same secret while this is held.
pub(super) struct Place {
    path: PathBuf,
    _lock: File,
}

/// Where they are unless somebody says otherwise: with the system's state for root, with the user's for others.
fn default_directory() -> Result<PathBuf, CommandError> {
    let named = |variable| {
        std::env::var_os(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(state) = named("XDG_STATE_HOME") {
        return Ok(state.join("luksmith"));
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/luksmith".into());
    }
    let home = named("HOME").ok_or_else(|| {
        CommandError::parameters(
            "there is no place for the journal: neither XDG_STATE_HOME nor HOME is set",
        )
        .hint("--state-dir DIR names one")
    })?;
    Ok(home.join(".local/state/luksmith"))
}

/// The directory of journals.
pub(super) fn directory(named: Option<&Path>) -> Result<PathBuf, CommandError> {
    named.map_or_else(default_directory, |path| Ok(path.to_owned()))
}

/// Whether a rotation of this secret was begun and has not come to its end.
pub(super) fn is_unfinished(directory: &Path, secret: &Uuid) -> bool {
    file_of(directory, secret).exists()
}

fn file_of(directory: &Path, secret: &Uuid) -> PathBuf {
    directory.join(format!("rotate-{secret}.json"))
}

impl Place {
    /// Takes the place of one secret's journal.
    pub(super) fn take(directory: &Path, secret: &Uuid) -> Result<Self, CommandError> {
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700);
        make.create(directory)
            .map_err(|error| failed("create", directory, error))?;
        let lock = directory.join(format!("rotate-{secret}.lock"));
        let mut open = OpenOptions::new();
        let open = open
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock);
        let held = open.map_err(|error| failed("open", &lock, error))?;
        match flock(&held, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(CommandError::new(
                    Kind::Busy,
                    "another luksmith rotates this secret",
                ));
            }
            Err(error) => return Err(failed("lock", &lock, error.into())),
        }
        Ok(Self {
            path: file_of(directory, secret),
            _lock: held,
        })
    }

    /// What was begun, if anything was.
    pub(super) fn read(&self) -> Result<Option<Journal>, CommandError> {
        let text = match std::fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| failed("read", &self.path, error))?,
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            CommandError::new(Kind::Storage, error).about(format_args!(
                "the journal {} is damaged",
                self.path.display()
            ))
        })
    }

    /// Puts this in its place, durably.
    pub(super) fn write(&self, journal: &Journal, watch: &dyn Watch) -> Result<(), CommandError> {
        let text = serde_json::to_vec_pretty(journal)
            .map_err(|error| CommandError::new(Kind::Storage, error))?;
        let file = NewFile::create(&self.path, self.path.exists(), watch)?;
        file.write(&text)?;
        Ok(file.keep()?)
    }

    /// The rotation has come to its end.
    pub(super) fn clear(&self) -> Result<(), CommandError> {
        let removed = std::fs::remove_file(&self.path);
        let directory = self.path.parent().unwrap_or(Path::new("."));
        removed
            .and_then(|()| File::open(directory)?.sync_all())
            .map_err(|error| failed("remove", &self.path, error))
    }
}
