//! The program, on volumes in an object store.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::program::{Serving, refused, succeeds};
use support::rgw::{BUCKET, KEY, Rgw};
use support::s3_double::{self, S3Double, Service};

/// A folder for the files of a test, and a prefix of its own in a bucket.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    endpoint: String,
    bucket: &'static str,
    prefix: String,
}

/// A cheap key derivation of each version.
pub(crate) const CHEAP: &str = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";

impl Site {
    /// In a real service. `None` if it is missing. No other test has the same name.
    pub(crate) fn real(name: &str) -> Option<Self> {
        let service = Rgw::running(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
        Some(Self::at(&service.endpoint, BUCKET, name))
    }

    /// In a service in memory.
    pub(crate) fn double(service: Service) -> (Self, S3Double) {
        let double = S3Double::start(service);
        let site = Self::at(&double.endpoint, s3_double::BUCKET, "test");
        (site, double)
    }

    fn at(endpoint: &str, bucket: &'static str, name: &str) -> Self {
        // Closed to others, for sockets.
        let mode = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().permissions(mode).tempdir();
        let folder = folder.unwrap();
        std::fs::write(folder.path().join("key"), "a passphrase").unwrap();
        Self {
            folder,
            endpoint: endpoint.to_owned(),
            bucket,
            prefix: name.to_owned(),
        }
    }

    /// The same, with its service behind another endpoint.
    pub(crate) fn behind(self, endpoint: String) -> Self {
        Self { endpoint, ..self }
    }

    /// The URL of the service.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
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

    /// What the names of a volume's objects begin with.
    pub(crate) fn prefix(&self, volume: &str) -> String {
        format!("{}/{volume}", self.prefix)
    }

    /// The program with these arguments. A name in braces stands for the URI of a volume.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
        command.current_dir(self.folder.path());
        command.env("HOME", self.folder.path());
        command
            .env("AWS_ACCESS_KEY_ID", KEY.0)
            .env("AWS_SECRET_ACCESS_KEY", KEY.1);
        command.args(line.split(' ').map(|word| self.expand(word)));
        command
    }

    fn expand(&self, text: &str) -> String {
        let Some((before, rest)) = text.split_once('{') else {
            return text.to_owned();
        };
        let (volume, after) = rest.split_once('}').unwrap();
        let (prefix, endpoint) = (self.prefix(volume), &self.endpoint);
        format!(
            "{before}s3://{}/{prefix}?endpoint={endpoint}{after}",
            self.bucket
        )
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

    /// A server of this volume.
    pub(crate) fn serve(&self, volume: &str) -> Serving {
        let socket = "s".to_owned() + &volume.replace(['{', '}', '?', '&', '/', '='], "-");
        let line = format!("serve {volume} --socket {socket} --key-file key");
        Serving::start(&mut self.command(&line), &self.path(&socket))
    }
}

/// Bytes that look random and depend only on `seed`.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut random = crate::faults::Random::new(seed);
    let words = std::iter::repeat_with(|| random.next().to_le_bytes());
    words.flatten().take(len).collect()
}
