//! The locks on an image: QEMU and cryptsetup respect ours, and we respect QEMU's and say which
//! program has the image open.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use luksmith::backend::file::{FileBackend, FileError, OpenOptions};

use support::peers;

fn reading() -> OpenOptions {
    OpenOptions::new()
}

fn writing() -> OpenOptions {
    OpenOptions::new().write(true)
}

/// How long a peer may take for what it does at once.
const PATIENCE: Duration = Duration::from_secs(20);

fn image() -> tempfile::NamedTempFile {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(20 << 20).unwrap();
    image
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Our program while it has the image open. It is killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// qemu-io, which has the image open from its first answer until its input ends.
fn qemu_io(program: &Path, image: &Path, read_only: bool) -> Running {
    let mut command = Command::new(program);
    command
        .args(["-f", "raw"])
        .args(read_only.then_some("-r"))
        .arg(image);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Running(command.spawn().unwrap())
}

fn holders(error: FileError) -> Vec<String> {
    match error {
        FileError::Busy { source, .. } => source
            .holders
            .into_iter()
            .map(|holder| holder.command)
            .collect(),
        error => panic!("not busy: {error}"),
    }
}

#[test]
fn a_writing_qemu_is_noticed_and_named() {
    let Some(program) = peers::find("qemu-io") else {
        return;
    };
    let image = image();
    let mut qemu = qemu_io(&program, image.path(), false);
    wait_until("qemu-io opens the image", || {
        FileBackend::open(image.path(), reading()).is_err()
    });
    for options in [reading(), writing()] {
        let error = FileBackend::open(image.path(), options).unwrap_err();
        assert_eq!(holders(error), ["qemu-io"]);
    }
    qemu.0.stdin.take().unwrap().write_all(b"quit\n").unwrap();
    qemu.0.wait().unwrap();
    FileBackend::open(image.path(), writing()).unwrap();
}

#[test]
fn a_reading_qemu_shares_with_readers_alone() {
    let Some(program) = peers::find("qemu-io") else {
        return;
    };
    let image = image();
    let _qemu = qemu_io(&program, image.path(), true);
    wait_until("qemu-io opens the image", || {
        FileBackend::open(image.path(), writing()).is_err()
    });
    assert_eq!(
        holders(FileBackend::open(image.path(), writing()).unwrap_err()),
        ["qemu-io"]
    );
    FileBackend::open(image.path(), reading()).unwrap();
}

#[test]
fn qemu_notices_us() {
    let Some(program) = peers::find("qemu-io") else {
        return;
    };
    let image = image();
    let opens = |read_only: bool| {
        let mut command = Command::new(&program);
        command.args(["-f", "raw"]).args(read_only.then_some("-r"));
        let output = peers::output(command.args(["-c", "read 0 512"]).arg(image.path()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), !said.contains("lock"), "{said}");
        output.status.success()
    };
    let writer = FileBackend::open(image.path(), writing()).unwrap();
    assert!(!opens(true));
    assert!(!opens(false));
    drop(writer);
    let reader = FileBackend::open(image.path(), reading()).unwrap();
    assert!(opens(true));
    assert!(!opens(false));
    drop(reader);
    assert!(opens(false));
}

/// cryptsetup waits for the lock on LUKS2 metadata.
#[test]
fn cryptsetup_waits_for_us() {
    let Some(program) = peers::find("cryptsetup") else {
        return;
    };
    let image = image();
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "a passphrase").unwrap();
    let mut format = Command::new(&program);
    format.args([
        "luksFormat",
        "--batch-mode",
        "--type",
        "luks2",
        "--pbkdf",
        "pbkdf2",
    ]);
    format
        .args(["--pbkdf-force-iterations", "1000", "--key-file"])
        .arg(key.path());
    peers::run(format.arg(image.path()));

    let start = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).arg(image.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Running(command.spawn().unwrap())
    };
    let finishes = |mut running: Running| {
        wait_until("cryptsetup ends", || {
            running.0.try_wait().unwrap().is_some()
        });
        assert!(running.0.wait().unwrap().success());
    };
    let waits = |running: &mut Running| {
        std::thread::sleep(Duration::from_millis(300));
        assert!(
            running.0.try_wait().unwrap().is_none(),
            "cryptsetup did not wait"
        );
    };

    let writer = FileBackend::open(image.path(), writing()).unwrap();
    let mut dump = start(&["luksDump"]);
    waits(&mut dump);
    drop(writer);
    finishes(dump);

    let reader = FileBackend::open(image.path(), reading()).unwrap();
    finishes(start(&["luksDump"]));
    let mut label = start(&["config", "--label", "ours"]);
    waits(&mut label);
    drop(reader);
    finishes(label);
}
