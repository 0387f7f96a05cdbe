//! Mounts a volume in a new folder.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::peers::{find, output, skip};
use tempfile::TempDir;

/// The size of a volume here, in bytes.
pub(crate) const SIZE: u64 = 8 << 20;

/// A user without rights.
pub(crate) const OTHER_USER: u32 = 65534;

/// Whether files can be mounted here. A container may have no FUSE.
pub(crate) fn can_mount() -> bool {
    if OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .is_err()
    {
        skip_device("/dev/fuse");
        return false;
    }
    rustix::process::geteuid().is_root() || find("fusermount3").is_some()
}

/// Says that a test is skipped since a device is missing. A machine has it, and only a container
/// may lack it.
pub(crate) fn skip_device(device: &str) {
    let container = Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists();
    match container {
        true => say_skipped(device),
        false => skip(device),
    }
}

#[allow(
    clippy::print_stderr,
    reason = "the reader of a test run is told what did not run"
)]
fn say_skipped(device: &str) {
    eprintln!("skipped: no {device} in this container");
}

/// A folder with `disk.img`, `key` and `plain`, closed to other users.
pub(crate) struct Folder {
    folder: TempDir,
    user: Option<u32>,
}

impl Folder {
    /// With a volume that contains the bytes of [`content`].
    pub(crate) fn new() -> Self {
        Self::made(None, &[])
    }

    /// With a volume of this format.
    pub(crate) fn of_format(format: &str) -> Self {
        Self::made(None, &["--format", format])
    }

    /// Of an ordinary user. The test is root.
    pub(crate) fn of_user(user: u32) -> Self {
        Self::made(Some(user), &[])
    }

    fn made(user: Option<u32>, more: &[&str]) -> Self {
        let closed = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().permissions(closed).tempdir();
        let folder = Self {
            folder: folder.unwrap(),
            user,
        };
        if user.is_some() {
            std::os::unix::fs::chown(folder.folder.path(), user, user).unwrap();
        }
        for (name, bytes) in [("key", b"secret".to_vec()), ("plain", content())] {
            folder.write(name, &bytes);
        }
        let cheap = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
        let args = ["encrypt", "plain", "disk.img", "--key-file", "key"];
        folder.succeed(args.iter().chain(&cheap).chain(more));
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
        let closed = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), closed).unwrap();
        std::os::unix::fs::chown(self.path(name), self.user, self.user).unwrap();
    }

    pub(crate) fn luksmith<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
        command.args(args).current_dir(self.folder.path());
        command.env_remove("LUKSMITH_LOG").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    pub(crate) fn succeed<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Vec<u8> {
        let ran = output(&mut self.luksmith(args));
        assert!(ran.status.success(), "{}", said(&ran));
        ran.stdout
    }

    /// Runs the program, which has to fail with this exit code. Returns its stderr.
    pub(crate) fn fail<I: IntoIterator<Item: AsRef<OsStr>>>(&self, code: i32, args: I) -> String {
        let ran = output(&mut self.luksmith(args));
        assert_eq!(ran.status.code(), Some(code), "{}", said(&ran));
        said(&ran)
    }

    /// Mounts `disk.img` at `file`.
    pub(crate) fn mount(&self, more: &[&str]) -> Mounted<'_> {
        let args = ["mount", "disk.img", "file", "--key-file", "key", "--json"];
        Mounted::start(self, self.luksmith(args.iter().chain(more)))
    }

    /// The plaintext of `disk.img`, read by the program.
    pub(crate) fn decrypted(&self, more: &[&str]) -> Vec<u8> {
        let args = ["decrypt", "disk.img", "-", "--key-file", "key"];
        self.succeed(args.iter().chain(more))
    }

    pub(crate) fn is_mounted(&self) -> bool {
        let point = std::fs::canonicalize(self.folder.path())
            .unwrap()
            .join("file");
        // Another test mounts at a name that is not UTF-8.
        let mounts = std::fs::read("/proc/self/mountinfo").unwrap();
        let mounts = String::from_utf8_lossy(&mounts);
        mounts
            .lines()
            .any(|line| line.split(' ').nth(4) == point.to_str())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Only what a failed test has left is mounted still.
        while self.is_mounted() {
            output(Command::new("umount").arg("--lazy").arg(self.path("file")));
        }
    }
}

pub(crate) fn said(ran: &Output) -> String {
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

/// The content of a new volume. All sectors are different.
pub(crate) fn content() -> Vec<u8> {
    let words = (0..SIZE / 8).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n);
    words.flat_map(u64::to_le_bytes).collect()
}

/// A mounted volume.
pub(crate) struct Mounted<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) child: Child,
    /// The JSON that the program printed.
    pub(crate) told: serde_json::Value,
}

impl<'a> Mounted<'a> {
    /// Starts a program that prints a line of JSON once the volume is mounted.
    pub(crate) fn start(folder: &'a Folder, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut said = String::new();
            let mut stderr = child.stderr.take().unwrap();
            stderr.read_to_string(&mut said).unwrap();
            panic!("not mounted: {said}");
        }
        support::json_schema::check(&line.parse().unwrap());
        Self {
            folder,
            child,
            told: serde_json::from_str(&line).unwrap(),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path("file")
    }

    pub(crate) fn open(&self) -> File {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path())
            .unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until the program ends. Returns its status and its stderr.
    pub(crate) fn ended(&mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }

    /// Unmounts it by the program, and returns the stderr of the one that had mounted it.
    pub(crate) fn unmount(mut self) -> String {
        self.folder.succeed(["unmount", "file"]);
        let (status, said) = self.ended();
        assert!(status.success(), "{status}: {said}");
        said
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
