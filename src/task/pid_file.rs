//! A file with the number of the process, by which scripts and service managers find a server.

use std::fs::Permissions;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::destination::{Destination, Present};
use super::new_file::NewFile;
use super::{Error, Kind, MadeFile, Watch};

/// As many bytes as a number of a process and its newline have.
const LONGEST: u64 = 16;

/// The file with the number of this process. Dropping it removes the file.
pub struct PidFile<'a> {
    made: MadeFile,
    watch: &'a dyn Watch,
}

impl<'a> PidFile<'a> {
    /// Writes the file, with mode 0644. One that is left of another process is replaced; a file
    /// with anything but a number in it stays.
    ///
    /// The file is reported to `watch` as unfinished until it is removed, since it has to be
    /// removed even if the program stops immediately.
    ///
    /// # Errors
    /// [`Kind::Exists`] if something else is at the path, and failed system calls.
    pub fn write(path: &Path, watch: &'a dyn Watch) -> Result<Self, Error> {
        let failed = |error| Error::io("write", path, error);
        let destination = Destination::look(path)?;
        let replaceable = match destination.present() {
            Present::Nothing => true,
            Present::File { .. } => has_only_a_number(&destination).map_err(failed)?,
            Present::BlockDevice => false,
        };
        if !replaceable {
            let message = format!("{} exists, and is not a PID file", path.display());
            return Err(Error::new(Kind::Exists, message));
        }
        let file = NewFile::at(destination, watch)?;
        file.write(format!("{}\n", std::process::id()).as_bytes())?;
        let readable = Permissions::from_mode(0o644);
        file.file()?.set_permissions(readable).map_err(failed)?;
        let made = file.keep()?;
        watch.unfinished(&made, true);
        Ok(Self { made, watch })
    }
}

fn has_only_a_number(destination: &Destination) -> io::Result<bool> {
    let file = destination
        .folder()
        .open_file(destination.name(), OFlags::RDONLY)?;
    let mut text = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut text)?;
    let number = text.trim_ascii();
    Ok(text.len() as u64 <= LONGEST && number.iter().all(u8::is_ascii_digit))
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        // Another process may have replaced it, or a user removed it.
        let _ = self.made.remove();
        self.watch.unfinished(&self.made, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Silent;

    #[test]
    fn it_has_the_number_and_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let watch = Silent::default();
        // One that is left of another process.
        std::fs::write(&path, "12345\n").unwrap();
        let file = PidFile::write(&path, &watch).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn it_replaces_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let watch = Silent::default();
        for text in ["12 34", "a disk", "12345678901234567"] {
            std::fs::write(&path, text).unwrap();
            let error = PidFile::write(&path, &watch).err().unwrap();
            assert_eq!(error.kind(), Kind::Exists, "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        // Nor does it remove what took its place.
        std::fs::remove_file(&path).unwrap();
        let file = PidFile::write(&path, &watch).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another").unwrap();
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another");
    }
}
