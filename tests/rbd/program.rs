//! The program, on images of the cluster.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::ceph::Ceph;
use support::peers;
use support::program::{Serving, refused, succeeds};

/// A folder for the files of a test, beside the cluster.
pub(crate) struct Site {
    pub(crate) ceph: &'static Ceph,
    folder: tempfile::TempDir,
}

/// The passphrase in the file `key`.
pub(crate) const PASSPHRASE: &str = "a passphrase";

/// A cheap key derivation of each version.
pub(crate) const CHEAP: [&str; 3] = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations=1000"];

impl Site {
    /// `None` if Ceph is missing.
    pub(crate) fn new() -> Option<Self> {
        let ceph = Ceph::running(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
        // Closed to others, for sockets.
        let mode = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new()
            .permissions(mode)
            .tempdir()
            .unwrap();
        std::fs::write(folder.path().join("key"), PASSPHRASE).unwrap();
        Some(Self { ceph, folder })
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

    /// The program with these arguments. `{IMAGE}` in braces stands for the URI of an image.
    pub(crate) fn command<S: AsRef<str>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
        command.current_dir(self.folder.path());
        command.args(arguments.iter().map(|text| self.expand(text.as_ref())));
        command
    }

    fn expand(&self, text: &str) -> String {
        let Some((before, rest)) = text.split_once('{') else {
            return text.to_owned();
        };
        let (image, after) = rest.split_once('}').unwrap();
        format!("{before}{}{after}", self.ceph.uri(image))
    }

    /// The program with the words of the line as its arguments.
    fn line(&self, line: &str) -> Command {
        let words: Vec<&str> = line.split(' ').collect();
        self.command(&words)
    }

    pub(crate) fn output(&self, line: &str) -> Output {
        peers::output(&mut self.line(line))
    }

    /// Runs the program, which has to succeed. The words of the line are its arguments.
    #[track_caller]
    pub(crate) fn luksmith(&self, line: &str) -> String {
        succeeds(&mut self.line(line))
    }

    /// Runs the program, which has to fail, and returns its exit code and what it says.
    #[track_caller]
    pub(crate) fn refused(&self, line: &str) -> (i32, String) {
        refused(&mut self.line(line))
    }

    /// A server of the volume in this image.
    pub(crate) fn serve(&self, image: &str) -> Serving {
        let socket = "s".to_owned() + &image.replace('/', "-");
        let line = format!("serve {{{image}}} --socket {socket} --key-file key");
        Serving::start(&mut self.line(&line), &self.path(&socket))
    }

    /// Makes a volume of this size, with more options.
    #[track_caller]
    pub(crate) fn create(&self, image: &str, size: &str, more: &str) {
        let cheap = CHEAP.join(" ");
        let line = format!("create {{{image}}} --size {size} --key-file key {cheap}{more}");
        self.luksmith(&line);
    }
}

/// Bytes that look random and depend only on `seed`.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}
