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
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::undo::{Kept, Undo, UndoStore, is_record};
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
        Self::beside_part(storage, 0)
    }

    /// The record beside a file in which the header begins at byte `offset`. Its name contains the
    /// offset, unless that is 0: `IMAGE,offset=N.luksmith-undo`.
    #[must_use]
    pub fn beside_part(storage: &FileBackend, offset: u64) -> Self {
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
        let named = |name| with_suffix(at_offset(name, offset));
        let place = place.map(|(folder, name)| (folder, named(name)));
        let mut undo = UndoFile::new(place, named(path.into()).into());
        undo.owner = about.ok().map(|about| about.uid());
        undo.into()
    }
}

fn at_offset(mut name: OsString, offset: u64) -> OsString {
    if offset > 0 {
        name.push(format!(",offset={offset}"));
    }
    name
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

    /// The same error, with the path.
    fn about(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.name()))
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

/// Whether no file has the name. None has one that is too long for the file system.
fn is_nothing(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::NotFound || kind == io::ErrorKind::InvalidFilename
}

/// Makes a hidden file for a record that is not complete, under a name that nothing has. Records
/// that this process's user left there when it was killed are removed: each change of an image has
/// it locked, so no other process is writing them.
fn create_unfinished(folder: &Folder, name: &OsStr) -> io::Result<(File, OsString)> {
    let mut number = 0;
    loop {
        // Short enough that the name with its additions is not too long for a file system.
        let name = &name.as_bytes()[..name.len().min(200)];
        let number_of_file = format!(".luksmith-{number}");
        let unfinished = [b".", name, number_of_file.as_bytes()].concat();
        let unfinished = OsString::from_vec(unfinished);
        if let Some(about) = left_behind(folder, &unfinished) {
            folder.remove_if(&unfinished, &about)?;
        }
        match folder.create_new(&unfinished, OFlags::empty()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            made => return Ok((made?, unfinished)),
        }
    }
}

/// The file with this name, if it belongs to this user only, and begins as a record does.
fn left_behind(folder: &Folder, name: &OsStr) -> Option<Metadata> {
    let file = folder.open_file(name, OFlags::RDONLY).ok()?;
    let about = file.metadata().ok()?;
    let ours = about.uid() == rustix::process::geteuid().as_raw();
    if !about.is_file() || !ours || about.mode() & 0o077 != 0 || about.nlink() != 1 {
        return None;
    }
    let mut start = Vec::new();
    file.take(16).read_to_end(&mut start).ok()?;
    is_record(&start).then_some(about)
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
            Err(error) if is_nothing(&error) => return Ok(None),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
                let message = format!("{} is a symbolic link", self.name());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            opened => opened.map_err(|error| self.about(&error))?,
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
        let made = create_unfinished(folder, name).and_then(|(mut file, temporary)| {
            let about = file.metadata()?;
            let made = write_and_rename(&mut file, record, folder, [&temporary, name]);
            made.inspect_err(|_| {
                // The change has not begun, so a partial record is useless.
                for left in [&temporary, name] {
                    let _ = folder.remove_if(left, &about);
                }
            })
        });
        made.map_err(|error| self.about(&error))
    }

    fn clear(&self) -> io::Result<()> {
        let (folder, name) = self.place()?;
        match folder.remove(name) {
            Err(error) if !is_nothing(&error) => Err(error),
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
