//! Undo records of changes that ended before their first write, and other files in the place of a
//! record.

use std::io;
use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::file::{FileBackend, OpenOptions as FileOptions};
use luksmith::container::{Container, Kept, NewKeyslot, OpenOptions, UndoFile, UndoStore, Which};
use luksmith::kdf::calibrate::Cost;
use luksmith::secret::Passphrase;
use luksmith_formats::Hash;

use crate::session::{CHEAP, Session};

/// A store that cuts a change when its record is durable.
struct Cut(UndoFile);

impl UndoStore for Cut {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        self.0.load()
    }
    fn save(&self, record: &[u8]) -> io::Result<()> {
        self.0.save(record)?;
        Err(io::Error::other("cut"))
    }
    fn clear(&self) -> io::Result<()> {
        self.0.clear()
    }
    fn keep_copy(&self, what: Kept, bytes: &[u8]) -> io::Result<String> {
        self.0.keep_copy(what, bytes)
    }
    fn name(&self) -> String {
        self.0.name()
    }
}

pub(crate) const RECORD: &str = "disk.img.luksmith-undo";

/// A full LUKS1 volume, whose change of passphrase from `key` to another one was cut before its
/// first write.
pub(crate) fn interrupted() -> Session {
    let session = Session::new();
    let create = "create disk.img --size 1M --type luks1 --key-file key";
    session.ok(create.split(' ').chain(CHEAP));
    let add = "key add disk.img --key-file key --new-key-file other";
    for _ in 1..8 {
        session.ok(add.split(' ').chain(CHEAP));
    }
    let options = FileOptions::new().write(true);
    let storage = Arc::new(FileBackend::open(session.path("disk.img"), options).unwrap());
    let store = Cut(UndoFile::at(session.path(RECORD)));
    let mut container = Container::open(storage, OpenOptions::new(store.into())).unwrap();
    let passphrase = |text: &[u8]| Passphrase::copy_from(text).unwrap();
    let interrupt = Interrupt::new();
    let unlocked = container.unlock(&passphrase(b"secret"), Which::Slot(0), &interrupt);
    let new = passphrase(b"never used");
    let cost = Cost::Pbkdf2 {
        hash: Hash::Sha256,
        iterations: 1000,
    };
    let new = NewKeyslot::new(&new, cost);
    container
        .change_keyslot(&unlocked.unwrap(), &new, &interrupt)
        .unwrap_err();
    drop(container);
    assert!(session.exists(RECORD));
    session
}

/// Another program changes the passphrase `key` to `new`: this one, after its record was moved
/// away.
fn change_without_the_record(session: &Session) {
    session.write("new", b"a new passphrase");
    std::fs::rename(session.path(RECORD), session.path("moved")).unwrap();
    let change = "key change disk.img --key-file key --new-key-file new";
    session.ok(change.split(' ').chain(CHEAP));
    std::fs::rename(session.path("moved"), session.path(RECORD)).unwrap();
}

fn opens(session: &Session, key: &str) -> bool {
    let test = ["key", "test", "disk.img", "--key-file", key];
    session.run(test).code() == 0
}

const REPAIR: [&str; 3] = ["header", "repair", "disk.img"];

#[test]
fn a_change_that_wrote_nothing_leaves_only_its_record() {
    let session = interrupted();
    let before = session.read("disk.img");
    session
        .run(["info", "disk.img"])
        .fails(4, "`luksmith header repair IMAGE`");
    let said = session.ok(REPAIR);
    assert!(said.contains("had written nothing"), "{said}");
    assert!(session.read("disk.img") == before && !session.exists(RECORD));
    assert!(opens(&session, "key"));
    assert_eq!(session.ok(REPAIR), "nothing to repair\n");
}

#[test]
fn a_passphrase_that_another_program_changed_meanwhile_is_kept() {
    let session = interrupted();
    change_without_the_record(&session);
    let (before, record) = (session.read("disk.img"), session.read(RECORD));
    let refused = session.run(REPAIR);
    refused.fails(4, "another program has changed the header since");
    refused.fails(4, "the header and the record stay as they are");
    refused.fails(
        4,
        "--undo discard keeps the present header (keyslot 0 may then open with neither passphrase)",
    );
    assert!(session.read("disk.img") == before && session.read(RECORD) == record);

    let said = session.ok(REPAIR.into_iter().chain(["--undo", "discard"]));
    assert!(session.read("disk.img") == before && !session.exists(RECORD));
    assert!(opens(&session, "new") && !opens(&session, "key"));

    // The copy of the record can still be applied.
    let copy = format!("{RECORD}.record-1");
    assert!(said.contains(&copy), "{said}");
    assert!(session.read(&copy) == record);
    let apply = ["--undo-file", &copy, "--undo", "apply"];
    session.ok(REPAIR.into_iter().chain(apply));
    assert!(opens(&session, "key") && !opens(&session, "new"));
}

#[test]
fn what_a_forced_rollback_overwrites_can_be_restored() {
    use std::os::unix::fs::PermissionsExt;
    let session = interrupted();
    change_without_the_record(&session);
    let said = session.ok(REPAIR.into_iter().chain(["--undo", "apply"]));
    let copy = format!("{RECORD}.header-1");
    assert!(said.contains(&copy), "{said}");
    assert!(opens(&session, "key") && !opens(&session, "new"));
    let mode = std::fs::metadata(session.path(&copy))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);

    session.ok(["header", "restore", "disk.img", &copy, "--force", "restore"]);
    assert!(opens(&session, "new") && !opens(&session, "key"));
}

#[test]
fn a_copy_of_the_header_replaces_no_other_copy() {
    let session = interrupted();
    change_without_the_record(&session);
    session.write(&format!("{RECORD}.header-1"), b"from before");
    session.ok(REPAIR.into_iter().chain(["--undo", "apply"]));
    assert_eq!(session.read(&format!("{RECORD}.header-1")), b"from before");
    assert!(session.exists(&format!("{RECORD}.header-2")));
}

/// A record is written completely before it gets its name, so these are not from a crash of this
/// program.
#[test]
fn a_damaged_record_is_discarded_only_on_request() {
    for length in [0, 5, 100] {
        let session = interrupted();
        let record = session.read(RECORD);
        session.write(RECORD, &record[..length]);
        session
            .run(["info", "disk.img"])
            .fails(4, "`luksmith header repair IMAGE`");
        let refused = session.run(REPAIR);
        refused.fails(4, "is not a complete undo record");
        refused.fails(4, "--undo discard");
        session
            .run(REPAIR.into_iter().chain(["--undo", "apply"]))
            .fails(4, "is not a complete undo record");
        session.ok(REPAIR.into_iter().chain(["--undo", "discard"]));
        let copy = format!("{RECORD}.record-1");
        assert_eq!(session.exists(&copy), length > 0);
        assert!(length == 0 || session.read(&copy) == record[..length]);
        assert!(
            opens(&session, "key") && !session.exists(RECORD),
            "{length}"
        );
    }
}

/// A LUKS2 volume without room for a second keyslot, so that a change of its passphrase needs a
/// record.
fn without_room() -> Session {
    let session = Session::new();
    let create = "create disk.img --size 64K --key-file key --luks2-keyslots-size 256K";
    session.ok(create.split(' ').chain(CHEAP));
    session
}

/// Until a record is complete, it has another name. A file of the user's with that name stays. What
/// a killed process has left there contains keyslots, and is removed.
#[test]
fn files_beside_a_new_record_are_left_alone() {
    use std::os::unix::fs::PermissionsExt;
    let session = without_room();
    let record = interrupted().read(RECORD);
    session.write("vm.new", b"mine");
    session.write(".vm.luksmith-0", b"mine");
    session.write(".vm.luksmith-1", &record[..1000]);
    session.write(".vm.luksmith-2", &record);
    let open = PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(session.path(".vm.luksmith-2"), open).unwrap();
    let change = "key change disk.img --key-file key --new-key-file other --undo-file vm";
    session.ok(change.split(' ').chain(CHEAP));
    assert!(opens(&session, "other") && !session.exists("vm"));
    assert_eq!(session.read("vm.new"), b"mine");
    assert_eq!(session.read(".vm.luksmith-0"), b"mine");
    assert!(!session.exists(".vm.luksmith-1"));
    assert!(session.read(".vm.luksmith-2") == record);
}

/// The record of a volume that another file replaces.
#[test]
fn the_record_of_a_replaced_volume_is_removed() {
    let session = interrupted();
    session.write("plain", &[7; 4096]);
    session.ok("encrypt plain whole.img --key-file key"
        .split(' ')
        .chain(CHEAP));
    let decrypt = "decrypt whole.img disk.img --key-file key --force overwrite";
    session.ok(decrypt.split(' '));
    assert_eq!(session.read("disk.img"), [7; 4096]);
    assert!(!session.exists(RECORD));
    // Another file stays.
    session.write(RECORD, b"mine");
    session.ok(decrypt.split(' '));
    assert_eq!(session.read(RECORD), b"mine");
}

#[test]
fn a_record_that_cannot_be_trusted_is_named_with_what_to_do() {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    let session = Session::with_volume();
    let all = |said: &str, hint: &str| {
        for args in [&["info", "disk.img"][..], &REPAIR] {
            let ran = session.run(args);
            ran.fails(4, "cannot read the undo record: ");
            ran.fails(4, said);
            ran.fails(4, hint);
        }
    };
    symlink("elsewhere", session.path(RECORD)).unwrap();
    all(
        &format!("{RECORD} is a symbolic link"),
        "hint: move it away",
    );
    std::fs::remove_file(session.path(RECORD)).unwrap();
    session.write(RECORD, b"");
    let open = PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(session.path(RECORD), open).unwrap();
    all(
        &format!("{RECORD} can be written by other users"),
        "hint: if its owner has changed this volume with luksmith, that user ends the change",
    );
    if rustix::process::geteuid().is_root() {
        let own = PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(session.path(RECORD), own).unwrap();
        chown(session.path(RECORD), Some(65534), None).unwrap();
        all(
            &format!("{RECORD} belongs to user 65534"),
            "otherwise remove the file, or name another place for the record",
        );
    }
}

#[test]
fn a_change_of_a_file_with_several_names_warns() {
    let session = Session::with_volume();
    std::fs::hard_link(session.path("disk.img"), session.path("link.img")).unwrap();
    let ran = session.run(["config", "link.img", "--label", "x"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    let warning = "warning: link.img has 2 names (hard links): the undo record of an interrupted \
                   change may be beside another one of them";
    assert!(ran.stderr().contains(warning), "{}", ran.stderr());
    assert_eq!(session.run(["info", "link.img"]).stderr(), "");
}

#[test]
fn a_record_of_another_volume_is_not_applied() {
    let session = Session::with_volume();
    let other = interrupted();
    session.write(RECORD, &other.read(RECORD));
    let before = session.read("disk.img");
    for args in [&REPAIR[..], &[&REPAIR[..], &["--undo", "apply"]].concat()] {
        let refused = session.run(args);
        refused.fails(4, "belongs to another volume");
        refused.fails(4, "--undo discard");
    }
    session.ok(REPAIR.into_iter().chain(["--undo", "discard"]));
    assert!(session.read("disk.img") == before && !session.exists(RECORD));
    assert!(opens(&session, "key"));
}

#[test]
fn a_record_is_kept_where_no_header_is_left() {
    let session = interrupted();
    let mut image = session.read("disk.img");
    image[..6].fill(0);
    session.write("disk.img", &image);
    session
        .run(REPAIR.into_iter().chain(["--undo", "discard"]))
        .fails(4, "the header cannot be read");
    assert!(session.exists(RECORD));
    session.ok(REPAIR.into_iter().chain(["--undo", "apply"]));
    assert!(opens(&session, "key"));
}

#[test]
fn a_record_that_was_named_has_to_be_there() {
    let session = Session::with_volume();
    let repair = REPAIR.into_iter().chain(["--undo-file", "missing"]);
    let refused = session.run(repair);
    refused.fails(4, "missing does not exist");
    refused.fails(4, "--undo-file");
    assert_eq!(session.ok(REPAIR), "nothing to repair\n");
}

#[test]
fn a_file_that_is_no_record_is_left_alone() {
    let session = Session::with_volume();
    session.write("notes", b"mine");
    let repair: Vec<_> = REPAIR.into_iter().chain(["--undo-file", "notes"]).collect();
    let discard: Vec<_> = repair
        .iter()
        .copied()
        .chain(["--undo", "discard"])
        .collect();
    for args in [&repair, &discard] {
        session.run(args).fails(1, "move notes away");
    }
    let label = ["config", "disk.img", "--label", "x", "--undo-file", "notes"];
    session.run(label).fails(1, "is not an undo record");
    assert_eq!(session.read("notes"), b"mine");
}

/// The name of the record is longer than that of the image, which a file system may not allow.
#[test]
fn an_image_whose_record_would_have_too_long_a_name() {
    let session = Session::new();
    for length in [242, 255] {
        let name = "n".repeat(length);
        let cheap = |line: &str| {
            let line = line.replace("NAME", &name);
            let words = line.split(' ').map(str::to_owned);
            words
                .chain(CHEAP.iter().map(|word| (*word).to_owned()))
                .collect::<Vec<_>>()
        };
        session.ok(cheap("create NAME --size 64K --type luks1 --key-file key"));
        session.ok(["info", &name]);
        session.ok(["key", "test", &name, "--key-file", "key"]);
        session.ok(["decrypt", &name, "plain", "--key-file", "key"]);
        std::fs::remove_file(session.path("plain")).unwrap();
        session.ok(cheap("key add NAME --key-file key --new-key-file other"));
        session.ok(["header", "backup", &name, "saved"]);
        session.ok([
            "key",
            "remove",
            &name,
            "--keyslot",
            "1",
            "--key-file",
            "key",
        ]);
        let before = session.read(&name);
        let restore = ["header", "restore", &name, "saved", "--force", "restore"];
        let ran = session.run(restore);
        ran.fails(4, "File name too long");
        ran.fails(4, "--undo-file PATH keeps the record");
        assert!(session.read(&name) == before, "written");
        session.ok(restore.iter().chain(&["--undo-file", "undo"]));
        std::fs::remove_file(session.path("saved")).unwrap();
        session.ok(["key", "test", &name, "--key-file", "other"]);
        assert!(!session.exists("undo"));
    }
    let names = std::fs::read_dir(session.folder()).unwrap();
    assert_eq!(names.count(), 4);
}
