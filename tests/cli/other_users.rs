//! Folders that another user may write to, while root works there.
//!
//! That user replaces a file that luksmith has just made by a link to a file of root's, or by a
//! file that everyone can read. Nothing of root's may change, and nothing that luksmith writes may
//! reach the other user. Here the file is replaced at the worst moment, when the task tells its
//! watch of the new file. In `races` a thread of that user replaces files in a loop.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use luksmith::Interrupt;
use luksmith::export::nbd::Options;
use luksmith::location::Location;
use luksmith::secret::Passphrase;
use luksmith::task::cost::Function;
use luksmith::task::listen::{Listen, Place, UnixSocket};
use luksmith::task::new_volume::{Extent, NewVolume, Plan};
use luksmith::task::{Kind, MadeFile, Watch};

use support::acl;

use crate::session::{CHEAP, Session};

/// The other user, and that user's group.
pub(crate) const OTHER: u32 = 65534;

/// A folder of another user, and a file of root's in another folder.
pub(crate) struct Folders {
    pub(crate) session: Session,
    pub(crate) theirs: PathBuf,
    pub(crate) victim: PathBuf,
}

const VICTIM: &[u8] = b"a file of root's";

impl Folders {
    /// `None` without root, who gives the folder to the other user.
    pub(crate) fn new() -> Option<Self> {
        Self::with(Session::with_volume)
    }

    /// The same, with the files of this session.
    #[allow(
        clippy::print_stderr,
        reason = "the reader of a test run is told what did not run"
    )]
    pub(crate) fn with(session: impl FnOnce() -> Session) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root gives files to another user");
            return None;
        }
        let session = session();
        // The other user can reach the own folder, and read nothing else.
        fs::set_permissions(session.folder(), Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(session.path("disk.img"), Permissions::from_mode(0o600)).unwrap();
        let theirs = session.path("theirs");
        fs::create_dir(&theirs).unwrap();
        lchown(&theirs, Some(OTHER), Some(OTHER)).unwrap();
        session.write("victim", VICTIM);
        let victim = session.path("victim");
        Some(Self {
            session,
            theirs,
            victim,
        })
    }

    #[track_caller]
    pub(crate) fn victim_is_unchanged(&self) {
        let about = self.victim.metadata().unwrap();
        assert_eq!((about.uid(), about.gid(), about.mode()), (0, 0, 0o100_600));
        assert!(fs::read(&self.victim).unwrap() == VICTIM, "written");
    }
}

/// A watch that replaces each file by a link as soon as it is told of the file.
struct Exchanges {
    interrupt: Interrupt,
    target: PathBuf,
    exchanged: AtomicUsize,
}

impl Exchanges {
    fn for_links_to(target: &Path) -> Self {
        Self {
            interrupt: Interrupt::new(),
            target: target.to_owned(),
            exchanged: AtomicUsize::new(0),
        }
    }
}

impl Watch for Exchanges {
    fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    fn unfinished(&self, file: &MadeFile, begun: bool) {
        if begun {
            let number = self.exchanged.fetch_add(1, Ordering::Relaxed);
            let path = file.path();
            fs::rename(&path, path.with_file_name(format!("away {number}"))).unwrap();
            symlink(&self.target, &path).unwrap();
        }
    }
}

#[test]
fn a_new_volume_and_its_header_are_not_written_through_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    fs::write(&victim, VICTIM).unwrap();
    let at = |name: &str| Location::Path(folder.path().join(name));
    let mut new = NewVolume::default();
    new.cost.function = Some(Function::Pbkdf2);
    new.cost.iterations = Some(1000);
    new.header = Some(at("header"));
    let watch = Exchanges::for_links_to(&victim);
    let plan = Plan::look(new, &at("disk.img"), Extent::Exactly(1 << 20)).unwrap();
    let made = plan.make(&Passphrase::copy_from(b"secret").unwrap(), &watch);
    let kept = made.unwrap().keep().unwrap_err();
    assert_eq!(kept.kind(), Kind::Busy);
    assert_eq!(watch.exchanged.load(Ordering::Relaxed), 2);
    assert_eq!(fs::read(&victim).unwrap(), VICTIM);
}

#[test]
fn a_socket_that_was_exchanged_gives_its_mode_and_group_to_nothing() {
    let Some(folders) = Folders::new() else {
        return;
    };
    let path = folders.theirs.join("a.sock");
    let mut socket = UnixSocket::new(&path);
    (socket.mode, socket.group, socket.trust_directory) = (0o666, Some(OTHER), true);
    let watch = Exchanges::for_links_to(&folders.victim);
    let listen = Listen::new(Place::Unix(socket), &Options::default()).unwrap();
    let listening = listen.start(&watch);
    assert_eq!(watch.exchanged.load(Ordering::Relaxed), 1);
    folders.victim_is_unchanged();
    drop(listening);
    // The link that took its place is not ours to remove.
    assert!(path.is_symlink());
}

#[test]
fn a_default_access_list_lets_its_users_neither_connect_nor_read() {
    let Some(folders) = Folders::new() else {
        return;
    };
    let (session, theirs) = (&folders.session, &folders.theirs);
    if !acl::admit_to_new_files(OTHER, theirs) {
        return;
    }
    let path = theirs.join("a.sock");
    let mut socket = UnixSocket::new(&path);
    (socket.mode, socket.trust_directory) = (0o660, true);
    let watch = luksmith::task::Silent::default();
    let listen = Listen::new(Place::Unix(socket), &Options::default()).unwrap();
    let listening = listen.start(&watch).unwrap();
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o660);
    assert!(!acl::is_there(&path));
    drop(listening);

    // The other user can read and write what is replaced.
    fs::write(theirs.join("plain"), "old").unwrap();
    assert!(acl::admit(OTHER, &theirs.join("plain")));
    let at = |name: &str| theirs.join(name).to_str().unwrap().to_owned();
    session.ok(["create", &at("new"), "--size", "1M", "--key-file", "key"]
        .into_iter()
        .chain(CHEAP));
    session.ok(["header", "backup", "disk.img", &at("backup")]);
    session.ok([
        "key",
        "volume-key",
        "disk.img",
        "--key-file",
        "key",
        "--out",
        &at("volume-key"),
        "--force",
        "volume-key",
    ]);
    let decrypt = [
        "decrypt",
        "disk.img",
        &at("plain"),
        "--key-file",
        "key",
        "--force",
        "overwrite",
    ];
    session.ok(decrypt);
    for name in ["new", "backup", "volume-key", "plain"] {
        // These bits are also the mask of the list.
        assert_eq!(
            theirs.join(name).metadata().unwrap().mode() & 0o077,
            0,
            "{name}"
        );
    }
}

#[test]
fn a_link_of_another_user_is_not_followed_to_write() {
    let Some(folders) = Folders::new() else {
        return;
    };
    let session = &folders.session;
    let link = folders.theirs.join("link");
    symlink(&folders.victim, &link).unwrap();
    lchown(&link, Some(OTHER), Some(OTHER)).unwrap();
    let link = link.to_str().unwrap();
    let create = ["create", link, "--size", "1M", "--key-file", "key"];
    let decrypt = ["decrypt", "disk.img", link, "--key-file", "key"];
    for args in [&create[..], &decrypt] {
        let forced = args.iter().chain(&["--force", "overwrite"]);
        let ran = session.run(forced);
        ran.fails(2, "theirs/link is a symbolic link of user 65534");
        ran.fails(2, "hint: name the path to which the link leads");
        folders.victim_is_unchanged();
    }
    let plot = ["benchmark", "--plot", link, "--force", "overwrite"];
    session.run(plot).fails(2, "a symbolic link of user 65534");
    session
        .run(["header", "backup", "disk.img", link])
        .fails(2, "a symbolic link of user 65534");
    folders.victim_is_unchanged();

    // An image is opened through such a link only to be read.
    let image = folders.theirs.join("image");
    symlink(session.path("disk.img"), &image).unwrap();
    lchown(&image, Some(OTHER), Some(OTHER)).unwrap();
    let image = image.to_str().unwrap();
    session.ok(["info", image]);
    let before = session.read("disk.img");
    let ran = session.run(["header", "erase", image, "--force", "erase"]);
    ran.fails(2, "theirs/image is not opened for writing: ");
    ran.fails(2, "hint: name the path to which the link leads");
    assert!(session.read("disk.img") == before);

    // A folder that is reached through such a link.
    let link = folders.theirs.join("folder");
    symlink(session.folder(), &link).unwrap();
    let out = link.join("out");
    let backup = ["header", "backup", "disk.img", out.to_str().unwrap()];
    session.run(backup).fails(
        2,
        "a symbolic link in a folder that other users can write to",
    );
    assert!(!session.exists("out"));

    // A link of root's in a folder of root's is followed, and stays.
    symlink("victim", session.path("own")).unwrap();
    let decrypt = ["decrypt", "disk.img", "own", "--key-file", "key"];
    session.ok(decrypt.iter().chain(&["--force", "overwrite"]));
    assert_eq!(session.read("victim").len(), 1 << 20);
    assert!(session.path("own").is_symlink());
}

#[test]
fn manual_pages_are_not_written_through_a_link() {
    let Some(folders) = Folders::new() else {
        return;
    };
    let session = &folders.session;
    let page = folders.theirs.join("luksmith-create.1");
    symlink(&folders.victim, &page).unwrap();
    let ran = session.run(["man", "--out", "theirs"]);
    ran.fails(4, "luksmith-create.1 is neither a file nor a block device");
    folders.victim_is_unchanged();

    // A FIFO is not waited for.
    fs::remove_file(&page).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &page, fifo, 0o600.into(), 0).unwrap();
    session.run(["man", "--out", "theirs"]).fails(4, "neither");

    // A link on the way.
    fs::remove_file(&page).unwrap();
    symlink("/tmp", folders.theirs.join("link")).unwrap();
    let ran = session.run(["man", "--out", "theirs/link/man"]);
    ran.fails(
        2,
        "is a symbolic link in a folder that other users can write to",
    );
    session.ok(["man", "--out", "theirs/man"]);
    let page = folders.theirs.join("man/luksmith.1");
    assert_eq!(page.metadata().unwrap().mode() & 0o777, 0o644);
}
