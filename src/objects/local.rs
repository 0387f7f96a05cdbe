//! Files of this host that a volume uses.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock, fstatfs};
use rustix::io::Errno;

use crate::sys::folder::{Folder, check_trusted, same_file};

/// The types of file systems in memory: tmpfs and ramfs.
const IN_MEMORY: [i128; 2] = [0x0102_1994, 0x8584_58f6];

/// Whether a file system of this type is in memory. The type has 32 bits, which some platforms
/// extend with their sign.
fn is_of_memory(kind: i128) -> bool {
    IN_MEMORY.contains(&(kind & 0xffff_ffff))
}

/// A file that this process has for itself.
pub(super) struct Local(File);

impl Local {
    /// Opens a file, or makes it. Its name is durable. Only this user and root can have written to
    /// it, and it has no other name.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (folder, name) = Folder::of(path)?;
        let file = Self(folder.open_or_create(&name)?);
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        check_trusted(path, &about)?;
        if about.nlink() != 1 {
            return Err(io::Error::other("it has several names"));
        }
        let locked = flock(&file.0, FlockOperation::NonBlockingLockExclusive);
        locked.map_err(|error| match error {
            Errno::WOULDBLOCK => io::Error::new(ErrorKind::ResourceBusy, "another program uses it"),
            error => error.into(),
        })?;
        // The name may have got another file before the lock.
        match folder.look(&name)? {
            Some(now) if same_file(&now, &about) => {}
            _ => return Err(io::Error::other("it was replaced while it was opened")),
        }
        folder.sync()?;
        Ok(file)
    }

    /// Whether the file is lost when the host fails.
    pub(super) fn is_in_memory(&self) -> io::Result<bool> {
        Ok(is_of_memory(fstatfs(&self.0)?.f_type.into()))
    }

    /// Fails if the file was removed meanwhile: nothing in it would be found after a crash.
    pub(super) fn is_named(&self) -> io::Result<()> {
        match self.metadata()?.nlink() {
            0 => Err(io::Error::other("the file was removed while it was in use")),
            _ => Ok(()),
        }
    }
}

impl Deref for Local {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

/// A child of this process may have the descriptor until it runs another program, so the lock is
/// given up, and not only the descriptor closed.
impl Drop for Local {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_in_memory_is_known_with_and_without_a_sign() {
        for kind in IN_MEMORY {
            let bits = u32::try_from(kind).unwrap();
            assert!(is_of_memory(kind) && is_of_memory(bits.cast_signed().into()));
        }
        // ext4, and btrfs, whose type has the highest bit too.
        assert!(!is_of_memory(0xef53) && !is_of_memory(0x9123_683e));
    }
}
