//! Files that all users may read, such as manual pages.

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use super::destination::Destination;
use super::new_file::NewFile;
use super::{Error, Watch};
use crate::sys::folder::Folder;

/// Writes files, each a name and its content, into a folder, which is made if it does not exist.
/// The folder is opened once. A file that has one of the names is replaced; its content is not
/// written over. Returns the paths.
///
/// The files have mode 0644, and new folders mode 0755 less the umask.
///
/// # Errors
/// [`Kind::Permission`](super::Kind::Permission) for a symbolic link of another user on the way,
/// [`Kind::Storage`](super::Kind::Storage) for a name of anything but a regular file, and failed
/// system calls.
pub fn write_public_files(
    folder: &Path,
    files: &[(String, Vec<u8>)],
    watch: &dyn Watch,
) -> Result<Vec<PathBuf>, Error> {
    let open = Folder::open_or_make(folder, Mode::from_raw_mode(0o755))
        .map_err(|error| Error::io("open", folder, error))?;
    let write = |(name, content): &(String, Vec<u8>)| {
        let path = folder.join(name);
        let found = Destination::within(open.clone(), OsString::from(name), &path)?;
        let file = NewFile::at(found.into_file()?, watch)?;
        file.write(content)?;
        file.file()?
            .set_permissions(Permissions::from_mode(0o644))
            .map_err(|error| Error::io("change the mode of", &path, error))?;
        file.keep()?;
        Ok(path)
    };
    files.iter().map(write).collect()
}
