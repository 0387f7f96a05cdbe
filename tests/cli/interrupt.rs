//! Ctrl-C ends the program soon, and leaves no unfinished file.

use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::session::{CHEAP, Session};

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
}

/// Whether there is an unfinished file, by its name.
fn is_being_made(session: &Session) -> bool {
    let entries = std::fs::read_dir(session.folder()).unwrap();
    entries.into_iter().any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().starts_with(".disk.img.luksmith-")
    })
}

#[test]
fn a_long_derivation_stops_within_a_second() {
    let session = Session::new();
    // This takes minutes, and is below the default limit of 100 million.
    let create = [
        "create",
        "disk.img",
        "--size",
        "1M",
        "--key-file",
        "key",
        "--pbkdf",
        "pbkdf2",
    ];
    let mut command = session.command(
        create
            .into_iter()
            .chain(["--pbkdf-force-iterations", "100000000"]),
    );
    let child = command.spawn().unwrap();
    while !is_being_made(&session) {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(100));
    let pressed = Instant::now();
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let took = pressed.elapsed();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(
        said.contains("interrupted") && said.contains("the unfinished disk.img is removed"),
        "{said}"
    );
    assert!(!session.exists("disk.img") && !is_being_made(&session));
}

#[test]
fn waiting_for_data_stops_and_removes_the_new_volume() {
    let session = Session::new();
    let encrypt = ["encrypt", "-", "disk.img", "--key-file", "key"];
    let mut child = session
        .command(encrypt.iter().chain(&CHEAP))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&[7; 8192]).unwrap();
    while !is_being_made(&session) {
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(
        output.status.code(),
        Some(130),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!session.exists("disk.img") && !is_being_made(&session));
}

/// SIGXFSZ would end the program, and leave the unfinished file.
#[test]
fn a_limit_of_file_sizes_is_an_error() {
    let session = Session::new();
    let create = ["create", "disk.img", "--size", "64M", "--key-file", "key"];
    let program = session.command(create.iter().chain(&CHEAP));
    let limited = std::process::Command::new("prlimit")
        .arg("--fsize=1048576")
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(session.folder())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(limited.stderr).unwrap();
    assert_eq!(limited.status.code(), Some(4), "{said}");
    assert!(said.contains("cannot make room"), "{said}");
    assert!(!session.exists("disk.img") && !is_being_made(&session));
}

/// Whether the program catches SIGTERM yet.
fn catches_signals(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
    caught & 1 << (Signal::TERM.as_raw() - 1) != 0
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The program waits for the other end of a FIFO, or for the reader of its output.
#[test]
fn the_first_signal_ends_a_wait_in_the_system() {
    let session = Session::with_volume();
    let fifo = std::process::Command::new("mkfifo")
        .arg(session.path("fifo"))
        .status();
    assert!(fifo.unwrap().success());
    for args in [
        "key test disk.img --key-file fifo",
        "key test disk.img --key file:fifo,size=6",
        "key add disk.img --key-file key --new-key file:fifo",
        "create new.img --size 1M --key-file fifo",
        "header restore disk.img fifo --force restore",
        "token import disk.img --json-file fifo",
        "token import disk.img --json-file -",
        "inspect --format raw disk.img --policy fifo",
        "key volume-key disk.img --key-file key --out fifo --force volume-key",
        "header backup disk.img -",
        "decrypt disk.img - --key-file key",
    ] {
        let mut child = session
            .command(args.split(' '))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until("it catches signals", || catches_signals(&child));
        std::thread::sleep(Duration::from_millis(100));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        wait_until(args, || child.try_wait().unwrap().is_some());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{args}: {said}");
        assert!(said.contains("interrupted"), "{args}: {said}");
    }
    assert!(!session.exists("new.img") && !session.exists("s/s.sock"));
}
