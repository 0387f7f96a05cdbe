//! A file that this process made, and may have to remove.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::destination::exchanged;
use crate::sys::folder::{Folder, same_file};

/// A file that this process made, by its folder, its name and its inode.
#[derive(Debug, Clone)]
pub struct MadeFile {
    folder: Folder,
    name: OsString,
    about: Metadata,
    /// While this is open, no other file gets the number of the inode.
    _held: Arc<File>,
}

impl MadeFile {
    /// The file with this name in this folder, which has to be the file that `about` describes.
    pub(super) fn find(folder: Folder, name: OsString, about: &Metadata) -> io::Result<Self> {
        let held = folder.look_open(&name)?;
        let found = held.metadata()?;
        if !same_file(&found, about) {
            return Err(exchanged());
        }
        Ok(Self {
            folder,
            name,
            about: found,
            _held: Arc::new(held),
        })
    }

    /// Its path when it was made, for messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// Removes the file. It succeeds if nothing has its name any more.
    ///
    /// # Errors
    /// Another file that has the name, which stays, and failed system calls.
    pub fn remove(&self) -> io::Result<()> {
        match self.folder.remove_if(&self.name, &self.about)? {
            true => Ok(()),
            false => Err(io::Error::other("another file has its name")),
        }
    }

    /// Fails unless its name leads to it.
    pub(super) fn check_named(&self) -> io::Result<()> {
        match self.folder.look(&self.name)? {
            Some(found) if same_file(&found, &self.about) => Ok(()),
            _ => Err(exchanged()),
        }
    }
}

/// Two of them are equal if they are the same file with the same name.
impl PartialEq for MadeFile {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && same_file(&self.about, &other.about)
    }
}

impl Eq for MadeFile {}
