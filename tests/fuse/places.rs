//! Where a volume can be mounted, and where not.

use std::fs;

use crate::mounted::{Folder, OTHER_USER, can_mount};

const MOUNT: [&str; 4] = ["mount", "disk.img", "--key-file", "key"];

#[test]
fn a_mount_point_hides_nothing() {
    let folder = Folder::new();
    let fail = |code, file: &str| folder.fail(code, MOUNT.iter().chain(&[file]));
    let said = fail(5, "plain");
    assert!(
        said.contains("plain has content, which would be hidden"),
        "{said}"
    );
    assert!(said.contains("name an empty file"), "{said}");
    assert!(fail(5, "disk.img").contains("has content"));
    fs::create_dir(folder.path("directory")).unwrap();
    assert!(fail(4, "directory").contains("directory"));
    let said = fail(4, "missing/file");
    assert!(said.contains("mkdir"), "{said}");
    let said = folder.fail(1, ["unmount", "plain"]);
    assert!(said.contains("no volume is mounted at plain"), "{said}");
    let said = folder.fail(1, ["unmount", "/proc"]);
    assert!(said.contains("a file system of type proc"), "{said}");
}

#[test]
fn an_empty_file_is_a_mount_point_and_stays() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    fs::write(folder.path("file"), "").unwrap();
    std::os::unix::fs::symlink("file", folder.path("link")).unwrap();
    let args = ["mount", "disk.img", "link", "--key-file", "key", "--json"];
    let mounted = crate::mounted::Mounted::start(&folder, folder.luksmith(args));
    assert!(folder.is_mounted());
    let said = folder.fail(5, MOUNT.iter().chain(&["file"]));
    assert!(said.contains("something is mounted at file"), "{said}");
    mounted.unmount();
    assert_eq!(fs::metadata(folder.path("file")).unwrap().len(), 0);
}

/// Root does not mount at a place to which another user has led the path.
#[test]
fn a_link_of_another_user_is_not_followed() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    fs::write(folder.path("victim"), "").unwrap();
    std::os::unix::fs::symlink("victim", folder.path("link")).unwrap();
    std::os::unix::fs::lchown(folder.path("link"), Some(OTHER_USER), None).unwrap();
    let said = folder.fail(2, MOUNT.iter().chain(&["link"]));
    assert!(
        said.contains(&format!("a symbolic link of user {OTHER_USER}")),
        "{said}"
    );
}

#[test]
fn a_name_with_any_byte_is_a_mount_point() {
    use std::os::unix::ffi::OsStrExt;
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let image = std::ffi::OsStr::from_bytes(b"a, b\\c\n\xff.img");
    fs::rename(folder.path("disk.img"), folder.path(".").join(image)).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"x y\\040,z\n\xfe");
    let mut command = folder.luksmith(["mount", "--key-file", "key", "--json"]);
    command.args([image, name]);
    let mut mounted = crate::mounted::Mounted::start(&folder, command);
    assert_eq!(
        fs::metadata(folder.path(".").join(name)).unwrap().len(),
        8 << 20
    );
    let mut unmount = folder.luksmith(["unmount"]);
    support::peers::run(unmount.arg(name));
    let (status, said) = mounted.ended();
    assert!(status.success(), "{status}: {said}");
}
