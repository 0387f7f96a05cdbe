use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};

use super::*;

/// A user who is not the one of the tests.
const OTHER: u32 = 65534;

/// Whether folders and links can be given to another user here.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn give(path: &Path) {
    lchown(path, Some(OTHER), Some(OTHER)).unwrap();
}

/// A folder with the mode 0755 and `sub/file` in it.
fn tree() -> (tempfile::TempDir, PathBuf) {
    let all = tempfile::tempdir().unwrap();
    let root = all.path().join("root");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
    fs::write(root.join("sub/file"), b"file").unwrap();
    (all, root)
}

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

#[track_caller]
fn refused<T: fmt::Debug>(opened: io::Result<T>, words: &str) {
    let error = opened.unwrap_err();
    let link = error.get_ref().and_then(|error| error.downcast_ref());
    let link: &ForeignLink = link.unwrap_or_else(|| panic!("{error}"));
    assert!(link.to_string().ends_with(words), "{link}");
}

#[test]
fn own_links_are_followed_and_names_are_not() {
    let (_all, root) = tree();
    symlink("sub", root.join("to sub")).unwrap();
    symlink(root.join("to sub"), root.join("absolute")).unwrap();
    symlink("../absolute/./file", root.join("sub/to file")).unwrap();
    let sub = fs::metadata(root.join("sub")).unwrap();
    for path in ["sub", "to sub", "absolute", "absolute/../to sub", "./sub//"] {
        let opened = Folder::open(&root.join(path)).unwrap();
        assert!(same_file(&opened.about().unwrap(), &sub), "{path}");
    }
    let (folder, last) = Folder::of(&root.join("absolute/to file")).unwrap();
    assert_eq!(last, "to file");
    assert!(folder.look(&last).unwrap().unwrap().is_symlink());
    assert!(folder.open_file(&last, OFlags::RDONLY).is_err());
    let (folder, last) = Folder::resolve(&root.join("absolute/to file")).unwrap();
    assert_eq!(last, "file");
    assert!(same_file(&folder.about().unwrap(), &sub));
    let (_, missing) = Folder::resolve(&root.join("sub/missing")).unwrap();
    assert_eq!(missing, "missing");
}

#[test]
fn what_is_no_folder_or_no_name_is_an_error() {
    let (_all, root) = tree();
    symlink("loop", root.join("loop")).unwrap();
    let kind = |path: &str| Folder::open(&root.join(path)).unwrap_err().raw_os_error();
    assert_eq!(kind("sub/file"), Some(libc::ENOTDIR));
    assert_eq!(kind("none/x"), Some(libc::ENOENT));
    assert_eq!(kind("loop"), Some(libc::ELOOP));
    assert!(Folder::resolve(&root.join("loop")).is_err());
    for path in ["sub/", "sub/.", "sub/..", "/", ""] {
        assert!(Folder::of(Path::new(path)).is_err(), "{path}");
    }
}

#[test]
fn links_of_others_are_refused() {
    if !is_root() {
        return;
    }
    let (_all, root) = tree();
    symlink("sub", root.join("link")).unwrap();
    symlink("sub/file", root.join("file")).unwrap();
    Folder::open(&root.join("link")).unwrap();

    // The folder of another user, with a link of root.
    give(&root);
    refused(Folder::open(&root.join("link")), "other users can write to");
    refused(
        Folder::resolve(&root.join("file")),
        "other users can write to",
    );
    Folder::open(&root.join("sub")).unwrap();

    // The folder of root, with a link of another user.
    lchown(&root, Some(0), Some(0)).unwrap();
    give(&root.join("link"));
    give(&root.join("file"));
    let user = format!("of user {OTHER}");
    refused(Folder::open(&root.join("link")), &user);
    refused(Folder::resolve(&root.join("file")), &user);
    refused(Folder::open_path(&root.join("file"), OFlags::RDWR), &user);

    // Writable for all: only the sticky bit keeps others from putting a link in place of root's.
    symlink("sub", root.join("own")).unwrap();
    fs::set_permissions(&root, Permissions::from_mode(0o777)).unwrap();
    refused(Folder::open(&root.join("own")), "other users can write to");
    fs::set_permissions(&root, Permissions::from_mode(0o775)).unwrap();
    refused(Folder::open(&root.join("own")), "other users can write to");
    fs::set_permissions(&root, Permissions::from_mode(0o1777)).unwrap();
    Folder::open(&root.join("own")).unwrap();
    refused(Folder::open(&root.join("link")), &user);
}

#[test]
fn work_stays_in_the_folder_that_was_opened() {
    let (_all, root) = tree();
    let folder = Folder::open(&root.join("sub")).unwrap();
    fs::rename(root.join("sub"), root.join("moved")).unwrap();
    fs::create_dir(root.join("sub")).unwrap();

    let mut made = folder.create_new(name("a"), OFlags::empty()).unwrap();
    made.write_all(b"a").unwrap();
    assert!(folder.create_new(name("a"), OFlags::empty()).is_err());
    folder.move_over(name("a"), &folder, name("b")).unwrap();
    let taken = folder.move_new(name("b"), &folder, name("file"));
    assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    folder.move_new(name("b"), &folder, name("c")).unwrap();
    folder.sync().unwrap();
    let mut text = String::new();
    let mut file = folder.open_file(name("c"), OFlags::RDONLY).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "a");
    assert_eq!(fs::read(root.join("moved/c")).unwrap(), b"a");
    assert_eq!(fs::read_dir(root.join("sub")).unwrap().count(), 0);

    let about = file.metadata().unwrap();
    let (found, last) = Folder::of_open(&file).unwrap();
    assert_eq!(
        (found.path(), last.as_os_str()),
        (&*root.join("moved"), name("c"))
    );
    fs::write(root.join("moved/c.new"), b"other").unwrap();
    folder.move_over(name("c.new"), &folder, name("c")).unwrap();
    assert!(!folder.remove_if(name("c"), &about).unwrap());
    assert_eq!(fs::read(root.join("moved/c")).unwrap(), b"other");
    assert!(Folder::of_open(&file).is_err());
    let about = folder.look(name("c")).unwrap().unwrap();
    assert!(folder.remove_if(name("c"), &about).unwrap());
    assert!(folder.look(name("c")).unwrap().is_none());
    assert!(folder.remove_if(name("c"), &about).unwrap());
}

#[test]
fn nothing_is_made_through_a_link() {
    let (_all, root) = tree();
    symlink(root.join("made"), root.join("sub/link")).unwrap();
    let folder = Folder::open(&root.join("sub")).unwrap();
    assert!(folder.open_or_create(name("link")).is_err());
    assert!(folder.create_new(name("link"), OFlags::empty()).is_err());
    assert!(!root.join("made").exists());
    folder.open_or_create(name("lock")).unwrap();
    let again = folder.open_or_create(name("lock")).unwrap();
    assert_eq!(again.metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn folders_are_made_for_this_user_only() {
    let (_all, root) = tree();
    let made = Folder::open_or_make(&root.join("a/b/c"), Mode::RWXU).unwrap();
    assert_eq!(made.about().unwrap().mode() & 0o7777, 0o700);
    made.check_trusted().unwrap();
    Folder::open_or_make(&root.join("a/b/c"), Mode::RWXU).unwrap();
    let private = made.make_private(name("d")).unwrap();
    assert_eq!(private.path(), root.join("a/b/c/d"));
    private.create_new(name("x"), OFlags::empty()).unwrap();
    private.move_new(name("x"), &made, name("y")).unwrap();
    made.remove_folder(name("d")).unwrap();
    assert_eq!(fs::read_dir(root.join("a/b/c")).unwrap().count(), 1);
}

#[test]
fn what_others_can_write_is_not_trusted() {
    let (_all, root) = tree();
    let folder = Folder::open(&root).unwrap();
    for (mode, trusted) in [(0o755, true), (0o775, false), (0o1777, false)] {
        fs::set_permissions(&root, Permissions::from_mode(mode)).unwrap();
        assert_eq!(folder.check_trusted().is_ok(), trusted, "{mode:o}");
    }
    if is_root() {
        fs::set_permissions(&root, Permissions::from_mode(0o700)).unwrap();
        give(&root);
        let error = folder.check_trusted().unwrap_err().to_string();
        assert!(error.ends_with("belongs to user 65534"), "{error}");
    }
}

#[test]
fn links_of_proc_lead_to_what_they_are() {
    let here = Folder::open(Path::new(".")).unwrap().about().unwrap();
    let through = Folder::open(Path::new("/proc/self/cwd")).unwrap();
    assert!(same_file(&through.about().unwrap(), &here));
    let file = tempfile::tempfile().unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    assert!(Folder::resolve(Path::new(&path)).is_err());
    let opened = Folder::open_path(Path::new(&path), OFlags::RDWR).unwrap();
    let about = file.metadata().unwrap();
    assert!(same_file(&opened.metadata().unwrap(), &about));
}
