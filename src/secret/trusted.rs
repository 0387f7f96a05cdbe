//! Opens programs that no other user can have written or replaced.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::sys::folder::{Folder, Owners};

/// Opens the program at an absolute path. It and its folder belong to root or to this user, and no
/// other user can write to them. Symbolic links are followed as [`Folder`] says.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let (folder, name) = Folder::resolve(path)?;
    folder.check_trusted()?;
    let file = folder.open_file(&name, OFlags::RDONLY)?;
    check(&file, path, Owners::RootOrUs)?;
    Ok(file)
}

/// As [`open`], but the owner is one of these, and no other user can replace a folder on the way.
pub(super) fn open_guarded(path: &Path, owners: Owners) -> io::Result<File> {
    let (folder, name) = Folder::resolve_trusted(path, owners)?;
    let file = folder.open_file(&name, OFlags::RDONLY)?;
    check(&file, path, owners)?;
    Ok(file)
}

fn check(file: &File, path: &Path, owners: Owners) -> io::Result<()> {
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(refused(path, "is not a regular file"));
    }
    if about.mode() & 0o111 == 0 {
        return Err(refused(path, "is not executable"));
    }
    owners.check(path, &about)
}

fn refused(path: &Path, why: &str) -> io::Error {
    let message = format!("{} {why}", path.display());
    io::Error::new(io::ErrorKind::PermissionDenied, message)
}
