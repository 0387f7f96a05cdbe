//! New files that appear under their name only when they are complete.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::OFlags;

use super::destination::{Destination, Needed, Present};
use super::error::chain;
use super::made_file::MadeFile;
use super::{Error, Note, Watch};
use crate::container::{UndoFile, UndoStore, discard_undo};

/// A new file that is written beside its final name, and renamed when it is complete. Dropping it
/// before [`NewFile::keep`] removes it.
pub struct NewFile<'a> {
    file: File,
    destination: Destination,
    written: MadeFile,
    temporary: OsString,
    watch: &'a dyn Watch,
    kept: bool,
}

impl<'a> NewFile<'a> {
    /// Makes an empty file, mode 0600, beside `path`. Nothing may be at `path`, neither now nor
    /// when the file is complete.
    ///
    /// # Errors
    /// As [`Destination::look`], and [`Kind::Exists`](super::Kind::Exists).
    pub fn create(path: &Path, watch: &'a dyn Watch) -> Result<Self, Error> {
        Self::at(Destination::new(path)?, watch)
    }

    /// Fails if [`create`](Self::create) would, as far as that is known before.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn check(path: &Path) -> Result<(), Error> {
        Destination::new(path)?.check_room(Needed::Plaintext(1))
    }

    /// Makes an empty file, mode 0600, beside a destination. A file that was found there is
    /// replaced when the new one is complete.
    ///
    /// # Errors
    /// Failed system calls.
    pub fn at(destination: Destination, watch: &'a dyn Watch) -> Result<Self, Error> {
        let failed = |error| Error::io("create", destination.path(), error);
        let (file, temporary) = create_beside(&destination).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let folder = destination.folder().clone();
        let written = MadeFile::find(folder.clone(), temporary.clone(), &about)
            // This process has no descriptor left, for example.
            .inspect_err(|_| drop(folder.remove_if(&temporary, &about)))
            .map_err(failed)?;
        watch.unfinished(&written, true);
        Ok(Self {
            file,
            destination,
            written,
            temporary,
            watch,
            kept: false,
        })
    }

    /// The path at which it will be.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// The open file, for reading and writing.
    ///
    /// # Errors
    /// Too many open files.
    pub fn file(&self) -> Result<File, Error> {
        self.file
            .try_clone()
            .map_err(|error| Error::io("open", self.destination.path(), error))
    }

    /// Writes the whole content of the file.
    ///
    /// # Errors
    /// Failed system calls.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        (&self.file)
            .write_all(bytes)
            .map_err(|error| Error::io("write", self.destination.path(), error))
    }

    /// Completes the file: syncs it, gives it its name, and syncs its directory. If it replaces a
    /// volume, the undo record of that volume is removed too.
    ///
    /// # Errors
    /// [`Kind::Exists`](super::Kind::Exists) if something took the name meanwhile,
    /// [`Kind::Busy`](super::Kind::Busy) if another program replaced one of the files, and failed
    /// system calls.
    pub fn keep(mut self) -> Result<MadeFile, Error> {
        let path = self.destination.path();
        let about = self
            .file
            .sync_all()
            .and_then(|()| self.file.metadata())
            .map_err(|error| Error::io("write", path, error))?;
        let replaces = self.destination.present() != Present::Nothing;
        let verb = if replaces { "replace" } else { "create" };
        let kept = self
            .named(&about)
            .map_err(|error| Error::io(verb, path, error))?;
        self.kept = true;
        self.watch.unfinished(&self.written, false);
        self.destination
            .folder()
            .sync()
            .map_err(|error| Error::io("write", self.destination.folder().path(), error))?;
        if replaces {
            self.discard_undo();
        }
        Ok(kept)
    }

    fn discard_undo(&self) {
        let undo = UndoFile::within(self.destination.folder(), self.destination.name());
        if let Err(error) = discard_undo(&undo) {
            self.watch.notes(Note::NotTakenBack {
                what: &undo.name(),
                error: &chain(&error),
            });
        }
    }

    /// Gives the file its name.
    fn named(&self, about: &Metadata) -> io::Result<MadeFile> {
        let (folder, name) = (self.destination.folder(), self.destination.name());
        self.written.check_named()?;
        if self.destination.present() == Present::Nothing {
            folder.move_new(&self.temporary, folder, name)?;
        } else {
            self.destination.check_unchanged()?;
            folder.move_over(&self.temporary, folder, name)?;
        }
        // A user who may write to the folder can have replaced the file since it was looked at.
        MadeFile::find(folder.clone(), name.to_owned(), about)
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        match self.written.remove() {
            Ok(()) => self.watch.notes(Note::Removed {
                name: self.destination.path(),
            }),
            Err(error) => self.watch.notes(Note::Left {
                path: &self.written.path(),
                error,
            }),
        }
        self.watch.unfinished(&self.written, false);
    }
}

/// Makes a hidden file whose name contains the final name. A file that a killed process with the
/// same ID has left is not touched.
fn create_beside(destination: &Destination) -> io::Result<(File, OsString)> {
    let file = destination.name().to_string_lossy();
    // Short enough that the name with its additions is not too long for a file system.
    let file: String = file.chars().take(50).collect();
    let process = std::process::id();
    let mut number = 0;
    loop {
        let name = OsString::from(format!(".{file}.luksmith-{process}-{number}"));
        match destination.folder().create_new(&name, OFlags::empty()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            made => return Ok((made?, name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::Interrupt;
    use crate::task::Kind;

    #[derive(Default)]
    struct Told(Interrupt, Mutex<Vec<String>>);

    impl Watch for Told {
        fn interrupt(&self) -> &Interrupt {
            &self.0
        }

        fn notes(&self, note: Note<'_>) {
            self.1.lock().unwrap().push(note.to_string());
        }

        fn unfinished(&self, _: &MadeFile, begun: bool) {
            self.1.lock().unwrap().push(format!("unfinished {begun}"));
        }
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.img");
        let watch = Told::default();
        let file = NewFile::create(&path, &watch).unwrap();
        file.write(b"whole").unwrap();
        assert!(!path.exists());
        file.keep().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(
            *watch.1.lock().unwrap(),
            ["unfinished true", "unfinished false"]
        );
        let exists = NewFile::create(&path, &watch).err().unwrap();
        assert_eq!(exists.kind(), Kind::Exists);
    }

    #[test]
    fn a_dropped_file_is_removed_and_the_old_one_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.img");
        std::fs::write(&path, b"old").unwrap();
        let watch = Told::default();
        let file = NewFile::at(Destination::look(&path).unwrap(), &watch).unwrap();
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
        let file = NewFile::create(&path, &watch).unwrap();
        std::fs::write(&path, b"other").unwrap();
        assert_eq!(file.keep().err().unwrap().kind(), Kind::Exists);
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
    }

    /// Replaces the unfinished file by a link, as soon as it was made.
    struct Exchanges(Interrupt, std::path::PathBuf);

    impl Watch for Exchanges {
        fn interrupt(&self) -> &Interrupt {
            &self.0
        }

        fn unfinished(&self, file: &MadeFile, begun: bool) {
            if begun {
                std::fs::rename(file.path(), self.1.with_extension("away")).unwrap();
                std::os::unix::fs::symlink(&self.1, file.path()).unwrap();
            }
        }
    }

    #[test]
    fn a_file_that_was_exchanged_is_not_kept_and_nothing_else_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        std::fs::write(&victim, b"victim").unwrap();
        let path = directory.path().join("a.img");
        let watch = Exchanges(Interrupt::new(), victim.clone());
        let file = NewFile::create(&path, &watch).unwrap();
        file.write(b"secret").unwrap();
        assert_eq!(file.keep().err().unwrap().kind(), Kind::Busy);
        assert_eq!(std::fs::read(&victim).unwrap(), b"victim");
        assert!(path.symlink_metadata().is_err());
    }

    #[test]
    fn another_file_than_the_one_that_was_agreed_to_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.img");
        std::fs::write(&path, b"old").unwrap();
        let watch = Told::default();
        let file = NewFile::at(Destination::look(&path).unwrap(), &watch).unwrap();
        std::fs::rename(&path, directory.path().join("kept")).unwrap();
        std::fs::write(&path, b"other").unwrap();
        assert_eq!(file.keep().err().unwrap().kind(), Kind::Busy);
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
    }

    #[test]
    fn a_link_that_leads_to_nothing_is_called_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.img");
        std::os::unix::fs::symlink("nothing", &path).unwrap();
        let error = NewFile::create(&path, &Told::default()).err().unwrap();
        assert_eq!(error.kind(), Kind::Exists);
        assert!(error.line().contains("a symbolic link to"), "{error}");
    }
}
