//! Folders that another user may write to, while root works there.
//!
//! That user replaces a file that luksmith has just made by a link to a file of root's, or by a
//! file that everyone can read. Nothing of root's may change, and nothing that luksmith writes may
//! reach the other user. In most tests the file is replaced at the worst moment, when the task
//! tells its watch of the new file. In the last ones a thread of that user replaces files in a
//! loop.

use std::collections::HashMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use luksmith::Interrupt;
use luksmith::export::nbd::Options;
use luksmith::location::Location;
use luksmith::secret::Passphrase;
use luksmith::task::cost::Function;
use luksmith::task::listen::{Listen, Place, UnixSocket};
use luksmith::task::new_volume::{Extent, NewVolume, Plan};
use luksmith::task::{Kind, MadeFile, Watch};
use rustix::process::{Gid, Uid};

use crate::session::{CHEAP, Session};

/// The other user, and that user's group.
const OTHER: u32 = 65534;

/// A folder of another user, and a file of root's in another folder.
struct Folders {
    session: Session,
    theirs: PathBuf,
    victim: PathBuf,
}

const VICTIM: &[u8] = b"a file of root's";

impl Folders {
    /// `None` without root, who gives the folder to the other user.
    #[allow(
        clippy::print_stderr,
        reason = "the reader of a test run is told what did not run"
    )]
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root gives files to another user");
            return None;
        }
        let session = Session::with_volume();
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
    fn victim_is_unchanged(&self) {
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

/// A thread of the other user that exchanges what luksmith makes in that user's folder: in turns
/// for a link to the victim, and for a file that everyone may write to.
struct Racer {
    stop: Arc<AtomicBool>,
    exchanged: Arc<AtomicUsize>,
    got: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
}

impl Racer {
    fn start(folders: &Folders, name: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let got: Arc<Mutex<Vec<String>>> = Arc::default();
        let (folder, victim) = (folders.theirs.clone(), folders.victim.clone());
        let exchanged = Arc::new(AtomicUsize::new(0));
        let (stopped, gets, count) = (stop.clone(), Arc::clone(&got), exchanged.clone());
        let thread = std::thread::spawn(move || {
            become_other();
            let mut seen = HashMap::new();
            while !stopped.load(Ordering::Relaxed) {
                for entry in fs::read_dir(&folder).unwrap().flatten() {
                    let found = entry.file_name().into_string().unwrap();
                    if found.contains("luksmith-") || found.starts_with(name) {
                        // Earlier for some and later for others, between other system calls.
                        let wait = Duration::from_millis(5 * (seen.len() as u64 % 5));
                        let (since, wait) = *seen.entry(found).or_insert((Instant::now(), wait));
                        if since.elapsed() < wait {
                            continue;
                        }
                        let number = count.fetch_add(1, Ordering::Relaxed);
                        exchange(&entry.path(), &folder, &victim, number);
                    } else if let Some(got) = readable(&entry.path()) {
                        gets.lock().unwrap().push(format!("{found}: {got} bytes"));
                    }
                }
            }
        });
        Self {
            stop,
            exchanged,
            got,
            thread,
        }
    }

    fn has_exchanged(&self) -> bool {
        self.exchanged.load(Ordering::Relaxed) > 0
    }

    /// Stops it, and fails if it could read anything or never exchanged a name.
    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.has_exchanged(), "no name was exchanged");
        self.thread.join().unwrap();
        let got = self.got.lock().unwrap();
        assert!(got.is_empty(), "read: {:?}", got.first());
    }
}

/// Makes this thread one of the other user.
fn become_other() {
    let (user, group) = (Uid::from_raw(OTHER), Gid::from_raw(OTHER));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(group, group, group).unwrap();
    rustix::thread::set_thread_res_uid(user, user, user).unwrap();
}

/// Any of this may fail, since luksmith works with the same names.
fn exchange(path: &Path, folder: &Path, victim: &Path, number: usize) {
    let new = folder.join(format!("new {number}"));
    if number.is_multiple_of(2) {
        let _ = symlink(victim, &new);
    } else {
        let _ = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o666)
            .open(&new);
    }
    let _ = fs::rename(path, folder.join(format!("away {number}")));
    let _ = fs::rename(&new, path);
}

/// How many bytes this user can read there.
fn readable(path: &Path) -> Option<u64> {
    let mut open = OpenOptions::new();
    let file = open.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let read = file.ok()?.take(4096).read_to_end(&mut Vec::new()).ok()? as u64;
    (read > 0).then_some(read)
}

/// Runs a command that writes a file in the other user's folder, while that user exchanges names.
fn race(args: impl Fn(&str) -> Vec<String>) {
    let Some(folders) = Folders::new() else {
        return;
    };
    let slow = support::peers::find("strace");
    let racer = Racer::start(&folders, "out");
    let mut number = 0;
    while number < RUNS || number < MOST_RUNS && !racer.has_exchanged() {
        let out = folders.theirs.join(format!("out{number}"));
        let mut command = folders.session.command(args(out.to_str().unwrap()));
        if let Some(strace) = &slow {
            command = slowed(strace, &command);
            command.current_dir(folders.session.folder());
        }
        // It may fail. What it must not do is to write anywhere else.
        let ran = command.output().unwrap();
        folders.victim_is_unchanged();
        assert!(ran.status.code().is_some(), "{ran:?}");
        number += 1;
    }
    racer.stop();
}

const RUNS: usize = 12;
/// On a busy machine the thread that exchanges names may not get to it at first.
const MOST_RUNS: usize = 500;

/// The command, with a pause after each file that it opens or makes, in which names are exchanged.
fn slowed(strace: &Path, command: &Command) -> Command {
    let mut slow = Command::new(strace);
    slow.args(["-f", "-o", "/dev/null", "-e", "trace=openat"])
        .args(["-e", "inject=openat:delay_exit=10000"])
        .arg(command.get_program())
        .args(command.get_args());
    slow
}

fn texts(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

#[test]
fn a_header_backup_is_not_diverted() {
    race(|out| texts(&["header", "backup", "disk.img", out]));
}

#[test]
fn a_volume_key_is_not_diverted() {
    let args = ["key", "volume-key", "disk.img", "--force", "volume-key"];
    race(|out| texts(&[&args[..], &["--key-file", "key", "--out", out]].concat()));
}

#[test]
fn plaintext_is_not_diverted() {
    race(|out| texts(&["decrypt", "disk.img", out, "--key-file", "key"]));
}

#[test]
fn a_new_volume_is_not_diverted() {
    let args = ["--size", "1M", "--key-file", "key"];
    race(|out| texts(&[&["create", out], &args[..], &CHEAP].concat()));
}

#[test]
fn a_socket_is_not_diverted() {
    let Some(folders) = Folders::new() else {
        return;
    };
    let racer = Racer::start(&folders, "out");
    let mut number = 0;
    while number < RUNS || number < MOST_RUNS && !racer.has_exchanged() {
        number += 1;
        let mut socket = UnixSocket::new(folders.theirs.join(format!("out{number}")));
        (socket.mode, socket.group, socket.trust_directory) = (0o666, Some(OTHER), true);
        let listen = Listen::new(Place::Unix(socket), &Options::default()).unwrap();
        // It may fail.
        drop(listen.start(&luksmith::task::Silent::default()));
        folders.victim_is_unchanged();
    }
    racer.stop();
}
