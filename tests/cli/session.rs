//! A folder in which the program runs, with cheap key derivations.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// The lowest cost of a keyslot.
pub(crate) const CHEAP: [&str; 4] = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];

/// A folder with a key file `key` ("secret") and `other` ("other").
pub(crate) struct Session {
    folder: TempDir,
}

impl Session {
    pub(crate) fn new() -> Self {
        let session = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        session.write("key", b"secret");
        session.write("other", b"other");
        session
    }

    /// With `disk.img`, a LUKS2 volume of 1 MiB that `key` opens.
    pub(crate) fn with_volume() -> Self {
        let session = Self::new();
        let args = ["create", "disk.img", "--size", "1M", "--key-file", "key"];
        session.ok(args.iter().chain(&CHEAP));
        session
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(name))
            .unwrap();
        file.write_all(bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    pub(crate) fn command<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_remove("LUKSMITH_LOG");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Ran {
        self.run_with(args, b"")
    }

    /// Runs with these bytes on stdin.
    pub(crate) fn run_with<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        args: I,
        stdin: &[u8],
    ) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let stdin = stdin.to_vec();
        // The program may end without reading all of its stdin.
        let feeding = std::thread::spawn(move || drop(pipe.write_all(&stdin)));
        let output = child.wait_with_output().unwrap();
        feeding.join().unwrap();
        Ran(output)
    }

    /// Runs a command that must succeed, and returns its stdout.
    pub(crate) fn ok<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code(), 0, "{}", ran.stderr());
        ran.stdout()
    }
}

/// The result of a run.
pub(crate) struct Ran(pub Output);

impl Ran {
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0.stdout
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// Checks that it failed with this code and this message.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, said: &str) {
        assert_eq!(self.code(), code, "{}", self.stderr());
        assert!(
            self.stderr().contains(said),
            "{said:?} not in:\n{}",
            self.stderr()
        );
    }
}
