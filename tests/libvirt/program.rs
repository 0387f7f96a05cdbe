//! luksmith, run in a folder of the test.

use std::ffi::OsStr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use support::boot_sector;

/// The size of a volume here, in bytes.
pub(crate) const SIZE: usize = 4 << 20;

/// How long a test waits. Emulation in software is slow on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Options for a keyslot that opens at once.
pub(crate) const CHEAP: [&str; 4] = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];

/// A folder that only its owner can enter.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let closed = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().permissions(closed).tempdir();
        Self(folder.unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let mut open = std::fs::OpenOptions::new();
        let file = open.write(true).create(true).truncate(true).mode(0o600);
        let mut file = file.open(self.path(name)).unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
    }

    /// Makes a volume with the boot sector and a pattern. The file `key` opens it.
    pub(crate) fn make_bootable(&self, name: &str, kind: &str) {
        self.write("key", b"a secret");
        let mut plain = content();
        plain[..512].copy_from_slice(&boot_sector::sector());
        self.write("plain", &plain);
        let args = [
            "encrypt",
            "plain",
            name,
            "--key-file",
            "key",
            "--type",
            kind,
        ];
        self.luksmith(args.iter().chain(&CHEAP));
    }

    /// Checks that the guest has read and written a volume.
    pub(crate) fn assert_guest_ran(&self, name: &str, key: &str) {
        let plain = self.command(["decrypt", name, "-", "--key-file", key]);
        let plain = { plain }.output().unwrap().stdout;
        assert!(
            plain == boot_sector::disk_after(content()),
            "{name} is not as the guest leaves it"
        );
    }

    pub(crate) fn command<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Command {
        self.program(env!("CARGO_BIN_EXE_luksmith"), args)
    }

    pub(crate) fn program<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        program: impl AsRef<OsStr>,
        args: I,
    ) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.0.path());
        for variable in ["LUKSMITH_LOG", "LIBVIRT_DEFAULT_URI", "XDG_RUNTIME_DIR"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs luksmith, which must succeed, and returns its standard output.
    pub(crate) fn luksmith<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> String {
        let mut command = self.command(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs luksmith, which must fail with `code`, and returns its standard error.
    pub(crate) fn fails<I: IntoIterator<Item: AsRef<OsStr>>>(&self, code: i32, args: I) -> String {
        let mut command = self.command(args);
        let output = command.output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{command:?}: {}",
            said(&output)
        );
        said(&output)
    }
}

/// The standard error of a program.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The content of a new volume: no two sectors are the same.
pub(crate) fn content() -> Vec<u8> {
    let words = (0..SIZE as u64 / 8).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n);
    words.flat_map(u64::to_le_bytes).collect()
}

/// Waits until a condition holds.
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(
            begun.elapsed() < PATIENCE,
            "{what}: that did not happen in time"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process, which is killed when this is dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Starts a program that makes a socket, and waits for the socket.
    pub(crate) fn with_socket(mut command: Command, socket: &Path) -> Self {
        let mut running = Self(command.spawn().unwrap());
        wait_until(&format!("{command:?} makes its socket"), || {
            let ended = running.0.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?} ended");
            socket.exists()
        });
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
