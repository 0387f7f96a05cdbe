//! An ordinary user mounts with fusermount3, and other users see only what that user permits.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::process::Signal;
use support::peers::{find, output};

use crate::mounted::{Folder, OTHER_USER, can_mount, content, said};

/// Whether this test can be another user, and that user can mount.
#[allow(
    clippy::print_stderr,
    reason = "the reader of a test run is told what did not run"
)]
fn can_be_others() -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be another user");
        return false;
    }
    let Some(program) = find("fusermount3").filter(|_| can_mount()) else {
        return false;
    };
    let nosuid = statvfs(&program).is_ok_and(|at| at.f_flag.contains(StatVfsMountFlags::NOSUID));
    if nosuid {
        eprintln!(
            "skipped: the file system of {} is mounted with nosuid",
            program.display()
        );
    }
    !nosuid
}

/// Reads the file as an ordinary user.
fn read_as(user: u32, folder: &Folder) -> std::process::Output {
    let mut cat = Command::new("cat");
    output(cat.arg(folder.path("file")).uid(user).gid(user))
}

#[test]
fn an_ordinary_user_mounts_and_unmounts() {
    if !can_be_others() {
        return;
    }
    let folder = Folder::of_user(OTHER_USER);
    let mounted = folder.mount(&[]);
    let read = read_as(OTHER_USER, &folder);
    assert!(read.stdout == content(), "{}", said(&read));
    // FUSE lets no other user in, not even root.
    let error = fs::read(mounted.path()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    mounted.unmount();
    assert!(!folder.path("file").exists());

    let mut mounted = folder.mount(&[]);
    mounted.signal(Signal::TERM);
    let (status, said) = mounted.ended();
    assert!(status.success() && !folder.is_mounted(), "{status}: {said}");

    let mut mounted = folder.mount(&[]);
    mounted.signal(Signal::KILL);
    mounted.ended();
    folder.succeed(["unmount", "file"]);
    assert!(!folder.is_mounted());
}

/// The administrator may permit it, and has not on a new system.
#[test]
fn others_have_access_only_if_the_administrator_permits_it() {
    if !can_be_others() {
        return;
    }
    let folder = Folder::of_user(OTHER_USER);
    let settings = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    let permitted = settings
        .lines()
        .any(|line| line.trim() == "user_allow_other");
    let args = [
        "mount",
        "disk.img",
        "file",
        "--key-file",
        "key",
        "--allow-other",
    ];
    if permitted {
        let mounted = folder.mount(&["--allow-other"]);
        assert!(fs::read(mounted.path()).unwrap() == content());
        mounted.unmount();
    } else {
        let said = folder.fail(2, args);
        assert!(
            said.contains("hint: a line user_allow_other in /etc/fuse.conf"),
            "{said}"
        );
        assert!(!folder.path("file").exists());
    }
}

/// The mode of the file counts, also for users whom FUSE lets in.
#[test]
fn the_file_of_root_is_for_root() {
    if !can_be_others() {
        return;
    }
    let folder = Folder::new();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path("."), open).unwrap();
    for more in [&[][..], &["--allow-other"]] {
        let mounted = folder.mount(more);
        let read = read_as(OTHER_USER, &folder);
        assert!(!read.status.success() && read.stdout.is_empty());
        assert!(said(&read).contains("Permission denied"), "{}", said(&read));
        mounted.unmount();
    }
}
