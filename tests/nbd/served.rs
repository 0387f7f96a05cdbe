//! Starts `luksmith serve` on a volume in a new folder.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::wire::Client;

/// The size of a volume here, in bytes.
pub(crate) const SIZE: u64 = 8 << 20;

/// A folder with volumes and a key file `key`, closed to other users.
#[derive(Clone)]
pub(crate) struct Folder(Arc<TempDir>);

impl Folder {
    pub(crate) fn new() -> Self {
        let closed = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().permissions(closed).tempdir();
        let folder = Self(Arc::new(folder.unwrap()));
        folder.write("key", b"secret");
        folder
    }

    /// A folder with `disk.img`, which contains the [`SIZE`] bytes of [`content`].
    pub(crate) fn with_volume() -> Self {
        let folder = Self::new();
        folder.make_volume("disk.img", &[]);
        folder
    }

    pub(crate) fn make_volume(&self, name: &str, more: &[&str]) {
        self.write("plain", &content());
        let cheap = [
            "--key-file",
            "key",
            "--pbkdf",
            "pbkdf2",
            "--pbkdf-force-iterations",
            "1000",
        ];
        let made = self
            .luksmith(["encrypt", "plain", name].iter().chain(&cheap).chain(more))
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let mut options = std::fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(self.path(name)).unwrap();
        file.write_all(bytes).unwrap();
    }

    pub(crate) fn luksmith<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Command {
        self.program(env!("CARGO_BIN_EXE_luksmith"), args)
    }

    pub(crate) fn program<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        program: impl AsRef<OsStr>,
        args: I,
    ) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.0.path());
        command.env_remove("LUKSMITH_LOG").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Serves `disk.img` on `s.sock`.
    pub(crate) fn serve(&self, more: &[&str]) -> Served {
        self.serve_with(
            &["disk.img", "--socket", "s.sock", "--key-file", "key"],
            more,
        )
    }

    pub(crate) fn serve_with(&self, args: &[&str], more: &[&str]) -> Served {
        Served::start(
            self,
            self.luksmith(["serve", "--json"].iter().chain(args).chain(more)),
        )
    }

    /// The plaintext of `disk.img`, read by the program.
    pub(crate) fn decrypted(&self) -> Vec<u8> {
        let args = ["decrypt", "disk.img", "-", "--key-file", "key"];
        let output = self.luksmith(args).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }
}

/// The content of a new volume. All sectors are different.
pub(crate) fn content() -> Vec<u8> {
    let words = (0..SIZE / 8).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n);
    words.flat_map(u64::to_le_bytes).collect()
}

/// A running server.
pub(crate) struct Served {
    pub(crate) folder: Folder,
    pub(crate) child: Child,
    /// The JSON that it printed.
    pub(crate) told: Value,
}

impl Served {
    /// Starts a server that prints a line of JSON once clients can connect.
    pub(crate) fn start(folder: &Folder, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut said = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut said)
                .unwrap();
            panic!("no server: {said}");
        }
        Self {
            folder: folder.clone(),
            child,
            told: {
                support::json_schema::check(&line.parse().unwrap());
                serde_json::from_str(&line).unwrap()
            },
        }
    }

    /// The URI of the first export.
    pub(crate) fn uri(&self) -> String {
        self.told["exports"][0]["uri"].as_str().unwrap().to_owned()
    }

    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path("s.sock")).unwrap()
    }

    /// A client of the export with the empty name.
    pub(crate) fn client(&self) -> Client {
        Client::of(self.connect())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it ends. Returns its status and its stderr.
    pub(crate) fn ended(&mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }

    /// Stops it with SIGTERM, which has to succeed, and returns its stderr.
    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let (status, said) = self.ended();
        assert!(status.success(), "{status}: {said}");
        said
    }

    /// The most memory that it has used so far, in bytes.
    pub(crate) fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            << 10
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a condition holds, for at most half a minute.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
