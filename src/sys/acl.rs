//! POSIX access control lists (`acl(5)`).
//!
//! A file inherits the default list of its folder, so the owner of the folder can name users who
//! get at new files there. The group bits of the file's mode are the mask of the list: a file of
//! mode 0600 admits none of these users, and a change of the mode to 0660 admits all of them.
//!
//! The lists of NFSv4 and CIFS are attributes with other names, which nothing here looks at: the
//! servers keep them, and derive the mode from them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

#[cfg(any(test, feature = "nbd", feature = "vhost-user"))]
use rustix::fs::getxattr_query;
use rustix::fs::removexattr;
use rustix::io::Errno;

/// The users and groups who get at a file, besides those in its mode.
const ACCESS: &str = "system.posix_acl_access";
/// The list that new files in a folder inherit.
const DEFAULT: &str = "system.posix_acl_default";

/// Removes the lists of a file or folder, also through a descriptor that cannot read it. Its mode
/// stays as it is.
///
/// # Errors
/// Failed system calls. A file system without lists is no error.
pub(crate) fn remove(file: &impl AsFd) -> io::Result<()> {
    for name in [DEFAULT, ACCESS] {
        match removexattr(path(file), name) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether a file has a list of users and groups besides its mode.
///
/// # Errors
/// Failed system calls.
#[cfg(any(test, feature = "nbd", feature = "vhost-user"))]
pub(crate) fn is_there(file: &impl AsFd) -> io::Result<bool> {
    match getxattr_query(path(file), ACCESS) {
        // Of a list that the mode says too, the kernel keeps nothing.
        Ok(length) => Ok(length > 0),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The path of an open file, whatever its name leads to now. The calls for a descriptor take none
/// that cannot read.
fn path(file: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions, set_permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    use rustix::fs::{XattrFlags, setxattr};

    use super::*;
    use crate::sys::folder::{Folder, check_trusted};

    /// Lets another user read, write and enter. Returns false if the file system has no lists.
    fn admit(name: &str, file: &Path) -> bool {
        let mut list = 2_u32.to_le_bytes().to_vec();
        // The owner, the named user, the group, the mask, all others.
        for (tag, permissions, user) in [
            (0x01_u16, 7_u16, u32::MAX),
            (0x02, 7, 65534),
            (0x04, 0, u32::MAX),
            (0x10, 7, u32::MAX),
            (0x20, 0, u32::MAX),
        ] {
            list.extend(tag.to_le_bytes());
            list.extend(permissions.to_le_bytes());
            list.extend(user.to_le_bytes());
        }
        match setxattr(file, name, &list, XattrFlags::empty()) {
            Err(Errno::NOTSUP) => false,
            set => set.map(|()| true).unwrap(),
        }
    }

    #[test]
    fn a_private_folder_inherits_no_list() {
        let all = tempfile::tempdir().unwrap();
        if !admit(DEFAULT, all.path()) {
            return;
        }
        // This is what is prevented.
        let inherits = File::create(all.path().join("file")).unwrap();
        assert!(is_there(&inherits).unwrap());

        let folder = Folder::open(all.path()).unwrap();
        let private = folder.make_private("private".as_ref()).unwrap();
        assert!(!is_there(&private).unwrap());
        let file = File::create(all.path().join("private/file")).unwrap();
        assert!(!is_there(&file).unwrap());
    }

    #[test]
    fn a_file_that_a_list_lets_another_user_write_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        check_trusted(&path, &file.metadata().unwrap()).unwrap();
        if !admit(ACCESS, &path) {
            return;
        }
        let about = file.metadata().unwrap();
        assert_eq!(about.mode() & 0o777, 0o770);
        check_trusted(&path, &about).unwrap_err();
        remove(&file).unwrap();
        assert!(!is_there(&file).unwrap());
    }
}
