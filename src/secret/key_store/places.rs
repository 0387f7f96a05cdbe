//! The folders in which helpers are looked for.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::error::KeyStoreError;
use crate::secret::HelperError;
use crate::secret::trusted;
use crate::sys::folder::Owners;

/// The folders of the system, in which everything belongs to root. The first one is for the
/// administrator, the second one for packages.
const SYSTEM: [&str; 2] = ["/etc/luksmith/helpers", "/usr/libexec/luksmith"];

/// The folders in which helpers are looked for: first those that the caller adds, in their order,
/// then `/etc/luksmith/helpers` and `/usr/libexec/luksmith`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelperFolders {
    added: Vec<PathBuf>,
}

impl HelperFolders {
    /// The folders of the system.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Also this folder, by its absolute path. It and its helpers belong to root or to the user of
    /// this process, and no other user can write to them.
    #[must_use]
    pub fn also(mut self, folder: impl Into<PathBuf>) -> Self {
        self.added.push(folder.into());
        self
    }

    /// Opens the helper with this name, and returns its path too.
    ///
    /// A folder that does not exist is skipped. The first helper that is found counts: one that is
    /// not trusted is an error, and no later folder is looked at.
    pub(super) fn open(&self, name: &str) -> Result<(File, PathBuf), KeyStoreError> {
        let file = format!("key-{name}");
        let added = self.added.iter().map(|folder| (folder.as_path(), true));
        let system = SYSTEM.iter().map(|folder| (Path::new(folder), false));
        for (folder, is_added) in added.chain(system) {
            let path = folder.join(&file);
            if !path.is_absolute() {
                return Err(KeyStoreError::Helper(HelperError::Relative));
            }
            let owners = match is_added {
                true => Owners::RootOrUs,
                false => Owners::Root,
            };
            match trusted::open_guarded(&path, owners) {
                Ok(file) => return Ok((file, path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(KeyStoreError::Helper(HelperError::Refused(error))),
            }
        }
        let added = self.added.iter().cloned();
        Err(KeyStoreError::NotFound {
            name: name.to_owned(),
            places: added.chain(SYSTEM.map(PathBuf::from)).collect(),
        })
    }
}
