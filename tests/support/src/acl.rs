//! POSIX access control lists, which name users besides those in a file's mode.

use std::path::Path;

use rustix::fs::{XattrFlags, getxattr_query, setxattr};
use rustix::io::Errno;

/// Lets a user read, write and enter a file, with the permissions of the group as the mask. Returns
/// false if the file system has no lists.
pub fn admit(user: u32, file: &Path) -> bool {
    set("system.posix_acl_access", user, file)
}

/// The same for what is made in a folder from now on.
pub fn admit_to_new_files(user: u32, folder: &Path) -> bool {
    set("system.posix_acl_default", user, folder)
}

/// Whether a file or socket has a list.
pub fn is_there(file: &Path) -> bool {
    match getxattr_query(file, "system.posix_acl_access") {
        Ok(length) => length > 0,
        Err(Errno::NODATA | Errno::NOTSUP) => false,
        Err(error) => panic!("{}: {error}", file.display()),
    }
}

fn set(kind: &str, user: u32, file: &Path) -> bool {
    // The owner, a named user, the group, the mask and all others, each with permissions and the
    // number of a user.
    const NONE: u32 = u32::MAX;
    let entries = [
        (0x01_u16, 7_u16, NONE),
        (0x02, 7, user),
        (0x04, 0, NONE),
        (0x10, 7, NONE),
        (0x20, 0, NONE),
    ];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, user) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(user.to_le_bytes());
    }
    match setxattr(file, kind, &list, XattrFlags::empty()) {
        Ok(()) => true,
        Err(Errno::NOTSUP) => false,
        Err(error) => panic!("{}: {error}", file.display()),
    }
}
