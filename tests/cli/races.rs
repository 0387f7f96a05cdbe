//! A thread of another user exchanges files in a loop, in a folder of that user in which root
//! works.
//!
//! Nothing of root's may change, and nothing that luksmith writes may reach the other user. Where
//! strace is installed, the program pauses at its system calls, so that names are exchanged between
//! any two of them.

use std::collections::HashMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Gid, Pid, Signal, Uid, kill_process};

use crate::other_users::{Folders, OTHER};
use crate::session::CHEAP;
use crate::undo;

/// A thread of the other user that exchanges names.
struct Racer {
    stop: Arc<AtomicBool>,
    exchanged: Arc<AtomicUsize>,
    got: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
}

impl Racer {
    /// Exchanges what luksmith makes in the folder: in turns for a link to the victim, and for a
    /// file that everyone may write to.
    fn start(folders: &Folders, name: &'static str) -> Self {
        let (folder, victim) = (folders.theirs.clone(), folders.victim.clone());
        let mut seen = HashMap::new();
        Self::turning(move |count, got| {
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
                } else if let Some(bytes) = readable(&entry.path()) {
                    got.lock().unwrap().push(format!("{found}: {bytes} bytes"));
                }
            }
        })
    }

    /// Takes turns until it is stopped. A turn counts what it exchanges, and reports what it could
    /// read.
    fn turning(mut turn: impl FnMut(&AtomicUsize, &Mutex<Vec<String>>) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let got: Arc<Mutex<Vec<String>>> = Arc::default();
        let exchanged = Arc::new(AtomicUsize::new(0));
        let (stopped, gets, count) = (stop.clone(), Arc::clone(&got), exchanged.clone());
        let thread = std::thread::spawn(move || {
            become_other();
            while !stopped.load(Ordering::Relaxed) {
                turn(&count, &gets);
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
    paused(strace, command, "openat", "delay_exit=10000")
}

/// The command, with a pause at each of these system calls.
fn paused(strace: &Path, command: &Command, calls: &str, pause: &str) -> Command {
    let mut slow = Command::new(strace);
    slow.args(["-f", "-o", "/dev/null", "-e"])
        .arg(format!("trace={calls}"))
        .args(["-e".to_owned(), format!("inject={calls}:{pause}")])
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        slow.current_dir(folder);
    }
    slow.stdin(std::process::Stdio::null());
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

/// A server binds a socket, gives it a group and a mode, and moves it to its name.
#[test]
fn a_socket_is_not_diverted() {
    let Some(folders) = Folders::new() else {
        return;
    };
    let slow = support::peers::find("strace");
    let racer = Racer::start(&folders, "out");
    let mut number = 0;
    while number < RUNS || number < MOST_RUNS && !racer.has_exchanged() {
        number += 1;
        let socket = folders.theirs.join(format!("out{number}"));
        let socket = socket.to_str().unwrap();
        let mut serve = texts(&["serve", "disk.img", "--key-file", "key", "--socket", socket]);
        serve.extend(texts(&["--socket-mode", "666", "--socket-group", "65534"]));
        let mut command = folders.session.command(serve);
        if let Some(strace) = &slow {
            // Whatever gives a file its owner, group or mode.
            let calls = "bind,?chmod,?fchmod,?fchmodat,?fchmodat2,?chown,?lchown,?fchown,fchownat";
            command = paused(
                strace,
                &command,
                calls,
                "delay_enter=10000:delay_exit=10000",
            );
        }
        command.stderr(std::process::Stdio::piped());
        let mut server = command.spawn().unwrap();
        // It may fail. What it must not do is to change another file.
        let mut said = BufReader::new(server.stderr.take().unwrap()).lines();
        let serves = |line: std::io::Result<String>| line.unwrap().contains("serving");
        if said.any(serves) {
            stop(&server, slow.is_some());
        }
        server.wait().unwrap();
        folders.victim_is_unchanged();
    }
    racer.stop();
}

/// Stops a server, which is the child of strace if it is slowed.
fn stop(server: &Child, slowed: bool) {
    let mut server = server.id().to_string();
    if slowed {
        let children = format!("/proc/{server}/task/{server}/children");
        server = fs::read_to_string(children).unwrap().trim().to_owned();
    }
    let server = Pid::from_raw(server.parse().unwrap()).unwrap();
    kill_process(server, Signal::TERM).unwrap();
}

/// The other user has an image, and a record for it with an old header. The name of the image leads
/// in turns to that image and to one of root's with the same UUID.
#[test]
fn an_undo_record_is_not_diverted() {
    let Some(folders) = Folders::with(undo::interrupted) else {
        return;
    };
    let session = &folders.session;
    let record = session.read(undo::RECORD);
    fs::remove_file(session.path(undo::RECORD)).unwrap();
    let old = session.read("disk.img");
    session.write("new", b"a new passphrase");
    let change = "key change disk.img --key-file key --new-key-file new";
    session.ok(change.split(' ').chain(CHEAP));
    let before = session.read("disk.img");

    let (folder, victim) = (folders.theirs.clone(), session.path("disk.img"));
    for (name, bytes) in [("own", &old), ("record", &record)] {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        lchown(&path, Some(OTHER), Some(OTHER)).unwrap();
    }
    let image = folder.join("image");
    let theirs = image.clone();
    let racer = Racer::turning(move |count, _| {
        let new = folder.join("next");
        let number = count.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(2) {
            let _ = symlink(&victim, &new);
        } else {
            let _ = fs::hard_link(folder.join("own"), &new);
        }
        let _ = fs::rename(&new, &theirs);
        // luksmith removes a record that it has applied.
        let _ = fs::hard_link(folder.join("record"), folder.join("image.luksmith-undo"));
        std::thread::sleep(Duration::from_millis(3));
    });
    let slow = support::peers::find("strace");
    let image = image.to_str().unwrap();
    for _ in 0..RUNS {
        let repair = ["header", "repair", image, "--undo", "apply"];
        let mut command = session.command(repair);
        if let Some(strace) = &slow {
            command = slowed(strace, &command);
        }
        let ran = command.output().unwrap();
        assert!(ran.status.code().is_some(), "{ran:?}");
        assert!(session.read("disk.img") == before, "written: {ran:?}");
        assert!(!session.exists(undo::RECORD));
    }
    racer.stop();
}
