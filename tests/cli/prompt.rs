//! Questions on a terminal. The program runs in a new session with a pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::session::{CHEAP, Session};

/// How long the program may take for an answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program on a terminal.
struct Terminal {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
    child: Child,
}

impl Terminal {
    fn run(session: &Session, args: &[&str]) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let side = || -> OwnedFd {
            rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap()
        };
        // setsid makes this terminal the controlling one, which `/dev/tty` names.
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_luksmith")])
            .args(args);
        command.current_dir(session.folder()).env("NO_COLOR", "1");
        let child = command
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap();
        drop(command);
        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            keyboard,
            screen,
            seen: String::new(),
            child,
        }
    }

    /// Waits until the screen has `text`, and removes it and all before it.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("{text:?} did not come ({error}): {:?}", self.seen),
            }
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn exit_code(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

const GOOD: &str = "vB7kq plinth otter gelid\n";

fn create<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    ["create", "disk.img", "--size", "1M"]
        .into_iter()
        .chain(CHEAP)
        .chain(extra.iter().copied())
        .collect()
}

#[test]
fn a_new_passphrase_is_asked_twice_and_rated() {
    let session = Session::new();
    let mut terminal = Terminal::run(&session, &create(&[]));
    terminal.expect("New passphrase for disk.img: ");
    terminal.type_in(GOOD);
    terminal.expect("again: ");
    terminal.type_in(GOOD);
    terminal.expect("luksmith: note: the passphrase is strong");
    assert_eq!(terminal.exit_code(), 0);
    assert!(!terminal.seen.contains("plinth"));

    let mut terminal = Terminal::run(&session, &["key", "test", "disk.img"]);
    terminal.expect("assphrase for disk.img: ");
    terminal.type_in("wrong\n");
    terminal.expect("try again");
    terminal.expect("assphrase for disk.img: ");
    terminal.type_in(GOOD);
    terminal.expect("keyslot 0 opens the volume");
    assert_eq!(terminal.exit_code(), 0);
}

#[test]
fn two_different_answers_are_refused() {
    let session = Session::new();
    let mut terminal = Terminal::run(&session, &create(&[]));
    terminal.expect("New passphrase for disk.img: ");
    terminal.type_in(GOOD);
    terminal.expect("again: ");
    terminal.type_in("something else\n");
    terminal.expect("the two passphrases are not the same");
    assert_eq!(terminal.exit_code(), 2);
    assert!(!session.exists("disk.img"));
}

#[test]
fn a_weak_passphrase_needs_force_weak() {
    let session = Session::new();
    for (extra, verdict, code) in [
        (&[][..], "luksmith: hint: choose several", 2),
        (&["--force-weak"], "disk.img: LUKS2", 0),
    ] {
        let mut terminal = Terminal::run(&session, &create(extra));
        terminal.expect("New passphrase for disk.img: ");
        terminal.type_in("password\n");
        terminal.expect("again: ");
        terminal.type_in("password\n");
        terminal.expect("passphrase is very weak");
        terminal.expect(verdict);
        assert_eq!(terminal.exit_code(), code);
    }
}

#[test]
fn a_loss_is_asked_for_by_name() {
    let session = Session::with_volume();
    for (answer, code) in [("yes\n", 1), ("erase\n", 0)] {
        let mut terminal = Terminal::run(&session, &["header", "erase", "disk.img"]);
        terminal.expect("luksmith: warning: all 1 keyslots of disk.img");
        terminal.expect("Type erase to go on, anything else to stop: ");
        terminal.type_in(answer);
        assert_eq!(terminal.exit_code(), code);
    }
    session
        .run(["key", "test", "disk.img", "--key-file", "key"])
        .fails(2, "no keyslot is in use");
}

#[test]
fn ctrl_c_at_the_question_ends_it() {
    let session = Session::new();
    let mut terminal = Terminal::run(&session, &create(&[]));
    terminal.expect("New passphrase for disk.img: ");
    terminal.type_in("\u{3}");
    terminal.expect("interrupted");
    assert_eq!(terminal.exit_code(), 130);
    assert!(!session.exists("disk.img"));
}
