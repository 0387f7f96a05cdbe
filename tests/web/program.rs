//! The program, and an encrypted volume in a folder.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};

use support::program::{refused, succeeds};

/// A folder with a file `key`, and its volume `disk.img` whose plaintext is the file `plain`.
pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
}

/// A server, killed at the end.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Site {
    pub(crate) fn new() -> Self {
        // Closed to others, for sockets.
        let mode = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().permissions(mode).tempdir();
        let site = Self {
            folder: folder.unwrap(),
        };
        site.write("key", b"a passphrase");
        let mut state = 1_u32;
        let words = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()
        });
        let plain: Vec<u8> = words.flatten().take(5 << 20).collect();
        site.write("plain", &plain);
        site.luksmith(
            "encrypt plain disk.img --key-file key --pbkdf pbkdf2 --pbkdf-force-iterations 1000",
        );
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
        command.current_dir(self.folder.path());
        command.args(line.split(' '));
        command
    }

    /// Runs the program, which has to succeed. The words of the line are its arguments.
    #[track_caller]
    pub(crate) fn luksmith(&self, line: &str) -> String {
        succeeds(&mut self.command(line))
    }

    /// Runs the program, which has to fail, and returns its exit code and what it says.
    #[track_caller]
    pub(crate) fn refused(&self, line: &str) -> (i32, String) {
        refused(&mut self.command(line))
    }
}
