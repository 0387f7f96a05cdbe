//! While there is an undo record beside a file, the library opens its header only for repair.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::Backend;
use luksmith::backend::file::{FileBackend, OpenOptions as FileOptions};
use luksmith::container::{
    CommitError, Container, CreateOptions, HeaderError, Kept, OpenError, OpenOptions, Repaired,
    RestoreOptions, Settled, Undo, UndoFile, UndoStore, Version,
};

use crate::volume::{cost, passphrase, unlock};

/// A store whose record cannot be removed, as after a crash immediately before the removal.
struct Stays(UndoFile);

impl UndoStore for Stays {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        self.0.load()
    }
    fn save(&self, record: &[u8]) -> io::Result<()> {
        self.0.save(record)
    }
    fn clear(&self) -> io::Result<()> {
        Err(io::Error::other("cut"))
    }
    fn keep_copy(&self, what: Kept, bytes: &[u8]) -> io::Result<String> {
        self.0.keep_copy(what, bytes)
    }
    fn name(&self) -> String {
        self.0.name()
    }
}

fn storage(path: &Path) -> Arc<FileBackend> {
    let options = FileOptions::new().write(true);
    Arc::new(FileBackend::open(path, options).unwrap())
}

fn create(path: &Path) {
    let storage = storage(path);
    let options = CreateOptions::new(Version::Luks1, cost());
    storage
        .resize(options.layout().unwrap().data_offset + 4096)
        .unwrap();
    let open = OpenOptions::new(Undo::beside(&storage));
    Container::create(
        storage,
        options,
        open,
        &passphrase("old"),
        &Interrupt::new(),
    )
    .unwrap();
}

/// A LUKS1 volume in a file, whose conversion to LUKS2 crashed immediately before the removal of
/// the undo record.
fn interrupted(folder: &Path) -> (PathBuf, PathBuf) {
    let path = folder.join("disk.img");
    std::fs::write(&path, []).unwrap();
    create(&path);
    let record = folder.join("disk.img.luksmith-undo");
    let kept = Stays(UndoFile::at(record.clone()));
    let mut container = Container::open(storage(&path), OpenOptions::new(kept.into())).unwrap();
    let converted = container.convert(Version::Luks2);
    assert!(
        matches!(converted, Err(HeaderError::Commit(CommitError::Undo(_)))),
        "{converted:?}"
    );
    assert!(record.exists());
    (path, record)
}

#[test]
fn an_interrupted_header_opens_for_repair_only() {
    let folder = tempfile::tempdir().unwrap();
    let (path, record) = interrupted(folder.path());
    let before = std::fs::read(&path).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("disk.img", &link).unwrap();

    for name in [&path, &link] {
        let storage = storage(name);
        let options = OpenOptions::new(Undo::beside(&storage));
        let opened = Container::open(storage.clone(), options.clone());
        assert!(
            matches!(opened, Err(OpenError::Interrupted { .. })),
            "{opened:?}"
        );
        let restored = Container::restore(
            storage,
            &before[..2 << 20],
            RestoreOptions::new().other_uuid(true),
            options,
        );
        let Err(HeaderError::Open(OpenError::Interrupted { undo })) = restored else {
            panic!("{restored:?}");
        };
        assert_eq!(Path::new(&undo), record.canonicalize().unwrap());
    }
    assert!(std::fs::read(&path).unwrap() == before, "written");

    let storage = storage(&link);
    let options = OpenOptions::new(Undo::beside(&storage));
    let repaired = Container::repair(storage.clone(), options.clone()).unwrap();
    // All of the change was durable, so it stays.
    let [Repaired::Interrupted { settled, .. }] = repaired.as_slice() else {
        panic!("{repaired:?}");
    };
    assert_eq!(*settled, Settled::Complete);
    let container = Container::open(storage, options).unwrap();
    assert_eq!(container.version(), Version::Luks2);
    assert!(unlock(&container, "old").is_some());
    assert!(!record.exists());
}

/// A caller can state that it does not look for a record.
#[test]
fn a_record_that_is_not_looked_for_is_not_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, record) = interrupted(folder.path());
    let options = OpenOptions::new(Undo::NotLookedFor);
    let mut container = Container::open(storage(&path), options).unwrap();
    assert_eq!(container.version(), Version::Luks2);
    let converted = container.convert(Version::Luks1);
    assert!(
        matches!(converted, Err(HeaderError::Commit(CommitError::NeedsUndo))),
        "{converted:?}"
    );
    assert!(record.exists());
}

#[test]
fn a_new_container_removes_the_record_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let (path, record) = interrupted(folder.path());
    create(&path);
    assert!(!record.exists());
    let storage = storage(&path);
    let options = OpenOptions::new(Undo::beside(&storage));
    Container::open(storage, options).unwrap();

    // What is not a record belongs to another program.
    std::fs::write(&record, "notes").unwrap();
    create(&path);
    assert_eq!(std::fs::read(&record).unwrap(), b"notes");
}

/// A name can lead to another file after it was opened, in a folder that another user may write.
#[test]
fn a_record_is_looked_for_beside_the_file_that_was_opened() {
    let theirs = tempfile::tempdir().unwrap();
    let (path, record) = interrupted(theirs.path());
    let ours = tempfile::tempdir().unwrap();
    let target = ours.path().join("disk.img");
    let away = theirs.path().join("away.img");
    std::fs::copy(&path, &target).unwrap();
    std::fs::rename(&path, &away).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();

    let storage = storage(&path);
    std::fs::rename(&away, &path).unwrap();
    let before = std::fs::read(&target).unwrap();
    let options = OpenOptions::new(Undo::beside(&storage));
    let repaired = Container::repair(storage, options).unwrap();
    assert!(repaired.is_empty(), "{repaired:?}");
    assert!(std::fs::read(&target).unwrap() == before, "written");
    assert!(record.exists());
}

#[test]
fn a_record_of_another_user_is_believed_only_for_the_image_of_that_user() {
    use std::os::unix::fs::{PermissionsExt, chown};

    let folder = tempfile::tempdir().unwrap();
    let (path, record) = interrupted(folder.path());
    let refused = |why: &str| {
        let storage = storage(&path);
        let options = OpenOptions::new(Undo::beside(&storage));
        let error = Container::repair(storage, options).unwrap_err();
        let mut source: &dyn std::error::Error = &error;
        while let Some(next) = source.source() {
            source = next;
        }
        assert!(source.to_string().contains(why), "{source}");
    };
    for mode in [0o620, 0o602] {
        std::fs::set_permissions(&record, PermissionsExt::from_mode(mode)).unwrap();
        refused("can be written by other users");
    }
    if support::acl::admit(65534, &record) {
        refused("can be written by other users");
    }
    std::fs::set_permissions(&record, PermissionsExt::from_mode(0o600)).unwrap();
    // Only root can give files away.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    chown(&record, Some(65534), None).unwrap();
    refused("belongs to user 65534");
    chown(&path, Some(65534), None).unwrap();
    let storage = storage(&path);
    let options = OpenOptions::new(Undo::beside(&storage));
    let repaired = Container::repair(storage, options).unwrap();
    assert!(matches!(
        repaired.as_slice(),
        [Repaired::Interrupted { .. }]
    ));
}
