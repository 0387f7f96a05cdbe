//! New files that appear under their name only when they are complete.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Advice, Error, Kind, Note, Watch};

/// What is at a path already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Nothing,
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
    },
    /// A block device.
    BlockDevice,
}

impl Present {
    /// Looks at a path, following symbolic links.
    ///
    /// # Errors
    /// Anything but a regular file or a block device, and failed system calls.
    pub fn at(path: &Path) -> Result<Self, Error> {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Ok(Self::File {
                size: metadata.len(),
            }),
            Ok(metadata) if metadata.file_type().is_block_device() => Ok(Self::BlockDevice),
            Ok(_) => Err(not_storage(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Nothing),
            Err(error) => Err(Error::io("look at", path, error)),
        }
    }
}

/// The error for a path that is neither a regular file nor a block device.
pub(super) fn not_storage(path: &Path) -> Error {
    let message = format!("{} is neither a file nor a block device", path.display());
    Error::new(Kind::Storage, message)
}

/// Opens a block device exclusively. The kernel refuses a device that is mounted or part of another
/// device, and refuses to mount this one until the file is closed.
///
/// # Errors
/// [`Kind::Busy`] for a device that is in use.
pub fn claim_device(path: &Path) -> Result<File, Error> {
    let mut open = OpenOptions::new();
    open.read(true).custom_flags(libc::O_EXCL);
    open.open(path).map_err(|error| {
        let in_use = error.kind() == io::ErrorKind::ResourceBusy;
        Error::io("overwrite", path, error).advise_if(in_use, Advice::DeviceInUse)
    })
}

/// A new file that is written beside its final name, and renamed when it is complete. Dropping it
/// before [`NewFile::keep`] removes it.
pub struct NewFile<'a> {
    written: PathBuf,
    name: PathBuf,
    replaces: bool,
    watch: &'a dyn Watch,
    kept: bool,
}

impl<'a> NewFile<'a> {
    /// Makes an empty file, mode 0600, beside `path`. With `replaces`, the file at `path` is
    /// replaced when the new one is complete. Without it, nothing may be at `path`, neither now nor
    /// when the file is complete.
    ///
    /// # Errors
    /// [`Kind::Exists`], and failed system calls.
    pub fn create(path: &Path, replaces: bool, watch: &'a dyn Watch) -> Result<Self, Error> {
        let name = if replaces {
            path.canonicalize()
                .map_err(|error| Error::io("find", path, error))?
        } else if path.symlink_metadata().is_ok() {
            let exists = io::ErrorKind::AlreadyExists.into();
            return Err(Error::io("create", path, exists));
        } else {
            path.to_owned()
        };
        let written = create_beside(&name).map_err(|error| Error::io("create", path, error))?;
        watch.unfinished(&written, true);
        Ok(Self {
            written,
            name,
            replaces,
            watch,
            kept: false,
        })
    }

    /// Where the bytes are written until the file is complete.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.written
    }

    /// Writes the whole content of the file.
    ///
    /// # Errors
    /// Failed system calls.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        OpenOptions::new()
            .write(true)
            .open(&self.written)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(|error| Error::io("write", &self.name, error))
    }

    /// Completes the file: syncs it, gives it its name, and syncs its directory.
    ///
    /// # Errors
    /// [`Kind::Exists`] if something took the name meanwhile, and failed system calls.
    pub fn keep(mut self) -> Result<(), Error> {
        let file =
            File::open(&self.written).map_err(|error| Error::io("open", &self.written, error))?;
        file.sync_all()
            .map_err(|error| Error::io("write", &self.written, error))?;
        if self.replaces {
            std::fs::rename(&self.written, &self.name)
                .map_err(|error| Error::io("replace", &self.name, error))?;
        } else {
            rename_to_new(&self.written, &self.name)
                .map_err(|error| Error::io("create", &self.name, error))?;
        }
        self.kept = true;
        self.watch.unfinished(&self.written, false);
        sync_directory(&self.name)
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        match std::fs::remove_file(&self.written) {
            Ok(()) => self.watch.notes(Note::Removed { name: &self.name }),
            Err(error) => self.watch.notes(Note::Left {
                path: &self.written,
                error,
            }),
        }
        self.watch.unfinished(&self.written, false);
    }
}

/// Makes a hidden file whose name contains the final name. A file that a killed process with the
/// same ID has left is not touched.
fn create_beside(name: &Path) -> io::Result<PathBuf> {
    let file = name.file_name().unwrap_or_default().to_string_lossy();
    // Short enough that the name with its additions is not too long for a file system.
    let file: String = file.chars().take(50).collect();
    let process = std::process::id();
    let mut number = 0;
    loop {
        let written = name.with_file_name(format!(".{file}.luksmith-{process}-{number}"));
        let mut open = OpenOptions::new();
        match open.write(true).create_new(true).mode(0o600).open(&written) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            opened => return opened.map(|_| written),
        }
    }
}

/// Renames, but never over another file, even one that appeared a moment ago.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The filesystem has no such rename: an empty file of ours takes the name first.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            File::create_new(to)?;
            std::fs::rename(from, to)
        }
        renamed => Ok(renamed?),
    }
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|open| open.sync_all())
        .map_err(|error| Error::io("write", directory, error))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::Interrupt;

    #[derive(Default)]
    struct Told(Interrupt, Mutex<Vec<String>>);

    impl Watch for Told {
        fn interrupt(&self) -> &Interrupt {
            &self.0
        }

        fn notes(&self, note: Note<'_>) {
            self.1.lock().unwrap().push(note.to_string());
        }

        fn unfinished(&self, _: &Path, begun: bool) {
            self.1.lock().unwrap().push(format!("unfinished {begun}"));
        }
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.img");
        let watch = Told::default();
        let file = NewFile::create(&path, false, &watch).unwrap();
        file.write(b"whole").unwrap();
        assert!(!path.exists());
        file.keep().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(
            *watch.1.lock().unwrap(),
            ["unfinished true", "unfinished false"]
        );
        let exists = NewFile::create(&path, false, &watch).err().unwrap();
        assert_eq!(exists.kind(), Kind::Exists);
    }

    #[test]
    fn a_dropped_file_is_removed_and_the_old_one_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.img");
        std::fs::write(&path, b"old").unwrap();
        let watch = Told::default();
        let file = NewFile::create(&path, true, &watch).unwrap();
        file.write(b"half").unwrap();
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let removed = format!("the unfinished {} is removed", path.display());
        assert_eq!(
            *watch.1.lock().unwrap(),
            [
                "unfinished true".to_owned(),
                removed,
                "unfinished false".to_owned()
            ]
        );
    }

    #[test]
    fn a_name_that_was_taken_meanwhile_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.img");
        let watch = Told::default();
        let file = NewFile::create(&path, false, &watch).unwrap();
        std::fs::write(&path, b"other").unwrap();
        assert_eq!(file.keep().unwrap_err().kind(), Kind::Exists);
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
    }
}
