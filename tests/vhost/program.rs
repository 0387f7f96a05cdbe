//! Starts `luksmith serve --vhost-user` on a volume in a new folder.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// The size of a volume here, in bytes.
pub(crate) const SIZE: usize = 8 << 20;

/// A folder with `disk.img`, which is a volume of [`SIZE`] bytes, and the file `key`.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let closed = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().permissions(closed).tempdir();
        let folder = Self(folder.unwrap());
        folder.write("key", b"secret");
        folder.make_volume("disk.img");
        folder
    }

    pub(crate) fn make_volume(&self, name: &str) {
        self.write("plain", &content());
        let cheap = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
        let mut made = self.luksmith(&["encrypt", "plain", name, "--key-file", "key"]);
        let made = made.args(cheap).output().unwrap();
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

    pub(crate) fn luksmith(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
        command.args(args).current_dir(self.0.path());
        command.env_remove("LUKSMITH_LOG").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Serves `disk.img` at the socket `v.sock`.
    pub(crate) fn serve(&self, more: &[&str]) -> Served {
        let vhost = ["disk.img", "--vhost-user", "v.sock", "--key-file", "key"];
        self.serve_with(&[&vhost[..], more].concat())
    }

    pub(crate) fn serve_with(&self, args: &[&str]) -> Served {
        let mut child = self
            .luksmith(&[&["serve", "--json"], args].concat())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let mut served = Served {
            child,
            told: Value::Null,
        };
        assert!(!line.is_empty(), "no server: {}", served.said());
        support::json_schema::check(&line.parse().unwrap());
        served.told = serde_json::from_str(&line).unwrap();
        served
    }

    /// What the program says when it fails.
    pub(crate) fn refusal(&self, args: &[&str]) -> String {
        let output = self.luksmith(args).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// The plaintext of `disk.img`, read by the program.
    pub(crate) fn decrypted(&self) -> Vec<u8> {
        let mut decrypt = self.luksmith(&["decrypt", "disk.img", "-", "--key-file", "key"]);
        let output = decrypt.output().unwrap();
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
    let words = (0..SIZE as u64 / 8).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n);
    words.flat_map(u64::to_le_bytes).collect()
}

/// A running server.
pub(crate) struct Served {
    child: Child,
    /// The JSON that it printed.
    pub(crate) told: Value,
}

impl Served {
    fn said(&mut self) -> String {
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        said
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it with SIGTERM, which has to succeed, and returns its stderr.
    pub(crate) fn stop(mut self) -> String {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let said = self.said();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }

    /// Waits until it ends by itself, which has to succeed.
    pub(crate) fn ends(mut self) {
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
