//! The undo record in a file.
//!
//! The contents of a record are written to the header, and other users may be able to write to the
//! folder of an image. So the folder is opened once, and the record is opened, made and removed in
//! that folder. A record is trusted only if its descriptor says that it belongs to root, to this
//! user, or to the owner of the opened image, and that no other user can write to it. It is then
//! written to that image only.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::undo::{Kept, Undo, UndoStore};
use crate::backend::file::FileBackend;
use crate::sys::folder::{Folder, same_file};

/// The suffix that is added to the name of an image.
const SUFFIX: &str = ".luksmith-undo";

/// The largest size of a record, in bytes. It is more than the largest old and new headers and
/// keyslots areas need.
const LARGEST_RECORD: u64 = 512 << 20;

impl Undo {
    /// The record beside a header in a regular file. Its name is that of the file with
    /// `.luksmith-undo` added.
    ///
    /// The record is in the folder in which the opened file has its name, whatever symbolic links
    /// led to it. A block device has no directory for a record, so this returns
    /// [`Undo::NotLookedFor`] for it, as for a file without a name. For a device, choose a path
    /// with [`UndoFile::at`].
    #[must_use]
    pub fn beside(storage: &FileBackend) -> Self {
        let about = storage.about();
        if storage.is_device() || about.as_ref().is_ok_and(|about| about.nlink() == 0) {
            return Self::NotLookedFor;
        }
        let place = storage.place().map_err(|error| {
            let image = storage.path().display();
            // Without its folder it is not known whether there is a record.
            io::Error::other(format!("the folder of {image} cannot be opened: {error}"))
        });
        let path = match &place {
            Ok((folder, name)) => folder.path().join(name),
            Err(_) => storage.path().to_owned(),
        };
        let place = place.map(|(folder, name)| (folder, with_suffix(name)));
        let mut undo = UndoFile::new(place, with_suffix(path.into()).into());
        undo.owner = about.ok().map(|about| about.uid());
        undo.into()
    }
}

fn with_suffix(mut name: OsString) -> OsString {
    name.push(SUFFIX);
    name
}

/// An [`UndoStore`] in a file of its own, with mode 0600.
///
/// A record is accepted only if it is a regular file that belongs to this user or to root, or, with
/// [`Undo::beside`], to the owner of the opened image, and that no other user can write to.
#[derive(Debug)]
pub struct UndoFile {
    place: Result<(Folder, OsString), (io::ErrorKind, String)>,
    /// For messages.
    path: PathBuf,
    /// The owner of the opened image.
    owner: Option<u32>,
}

impl UndoFile {
    /// A store at exactly this path. Its folder is opened now.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self::new(Folder::of(&path), path)
    }

    /// A store beside an image at this path, whose folder is opened now. The name has
    /// `.luksmith-undo` added. For an image that is open, use [`Undo::beside`].
    #[must_use]
    pub fn beside(image: &Path) -> Self {
        Self::at(with_suffix(image.into()).into())
    }

    /// A store beside a file with this name in this folder.
    pub(crate) fn within(folder: &Folder, name: &OsStr) -> Self {
        let name = with_suffix(name.to_owned());
        let path = folder.path().join(&name);
        Self::new(Ok((folder.clone(), name)), path)
    }

    fn new(place: io::Result<(Folder, OsString)>, path: PathBuf) -> Self {
        Self {
            place: place.map_err(|error| (error.kind(), error.to_string())),
            path,
            owner: None,
        }
    }

    fn place(&self) -> io::Result<(&Folder, &OsStr)> {
        match &self.place {
            Ok((folder, name)) => Ok((folder, name)),
            Err((kind, message)) => Err(io::Error::new(*kind, message.clone())),
        }
    }

    fn check(&self, record: &Metadata) -> io::Result<()> {
        let refused = |kind, why: String| {
            let message = format!("{} {why}", self.name());
            Err(io::Error::new(kind, message))
        };
        if !record.is_file() || record.len() > LARGEST_RECORD {
            return refused(io::ErrorKind::InvalidData, "is no undo record".to_owned());
        }
        let us = rustix::process::geteuid().as_raw();
        let trusted = [Some(0), Some(us), self.owner];
        if !trusted.contains(&Some(record.uid())) {
            let why = format!("belongs to user {}", record.uid());
            return refused(io::ErrorKind::PermissionDenied, why);
        }
        if record.mode() & 0o022 != 0 {
            let why = "can be written by other users".to_owned();
            return refused(io::ErrorKind::PermissionDenied, why);
        }
        Ok(())
    }
}

fn write_and_rename(
    file: &mut File,
    record: &[u8],
    folder: &Folder,
    [temporary, name]: [&OsStr; 2],
) -> io::Result<()> {
    file.write_all(record)?;
    file.sync_all()?;
    folder.move_over(temporary, folder, name)?;
    match folder.look(name)? {
        Some(found) if same_file(&found, &file.metadata()?) => folder.sync(),
        _ => Err(io::Error::other("another program has replaced the record")),
    }
}

impl UndoStore for UndoFile {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        let opened = self
            .place()
            .and_then(|(folder, name)| folder.open_file(name, OFlags::RDONLY));
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        self.check(&file.metadata()?)?;
        let mut record = Vec::new();
        file.take(LARGEST_RECORD).read_to_end(&mut record)?;
        Ok(Some(record))
    }

    /// Makes the record under another name, and renames it when it is complete: so it exists as a
    /// whole or not at all.
    fn save(&self, record: &[u8]) -> io::Result<()> {
        let (folder, name) = self.place()?;
        let mut temporary = name.to_owned();
        temporary.push(".new");
        match folder.remove(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = folder.create_new(&temporary, OFlags::empty())?;
        let about = file.metadata()?;
        let made = write_and_rename(&mut file, record, folder, [&temporary, name]);
        made.inspect_err(|_| {
            // The change has not begun, so a partial record is useless.
            for left in [&temporary, name] {
                let _ = folder.remove_if(left, &about);
            }
        })
    }

    fn clear(&self) -> io::Result<()> {
        let (folder, name) = self.place()?;
        match folder.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => folder.sync(),
        }
    }

    fn keep_copy(&self, what: Kept, bytes: &[u8]) -> io::Result<String> {
        let (folder, name) = self.place()?;
        let what = match what {
            Kept::Header => "header",
            Kept::Record => "record",
        };
        let mut number = 1;
        let (mut file, suffix) = loop {
            let suffix = format!(".{what}-{number}");
            let mut copy = name.to_owned();
            copy.push(&suffix);
            match folder.create_new(&copy, OFlags::empty()) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                created => break (created?, suffix),
            }
        };
        file.write_all(bytes)?;
        file.sync_all()?;
        folder.sync()?;
        Ok(format!("{}{suffix}", self.name()))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}
