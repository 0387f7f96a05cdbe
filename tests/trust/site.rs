//! A folder in which the program runs, with a pinned volume.

use std::path::{Path, PathBuf};
use std::process::Command;

use support::program::{refused, succeeds};
use tempfile::TempDir;

/// The lowest cost of a keyslot.
pub(crate) const CHEAP: &str = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";

/// The exit code for a volume that is not as it is pinned.
pub(crate) const NOT_TRUSTED: i32 = 7;

/// An access key for services that check none.
pub(crate) const S3_KEY: (&str, &str) = ("key", "secret");

pub(crate) struct Site(TempDir);

impl Site {
    /// A folder with the key files `key` and `other`.
    pub(crate) fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        std::fs::write(site.path("key"), b"secret").unwrap();
        std::fs::write(site.path("other"), b"other").unwrap();
        site
    }

    /// With `disk.img`, which `key` opens, and which is pinned in `pins`.
    pub(crate) fn pinned(kind: &str) -> Self {
        let site = Self::new();
        site.create("disk.img", kind);
        site.ok("trust init disk.img --trust pins --key-file key");
        site
    }

    pub(crate) fn create(&self, name: &str, kind: &str) {
        self.ok(&format!(
            "create {name} --size 1M --type {kind} --sector-size 512 --key-file key {CHEAP}"
        ));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn copy(&self, from: &str, to: &str) {
        std::fs::copy(self.path(from), self.path(to)).unwrap();
    }

    /// `luksmith` with these words as its arguments.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = self.of(Path::new(env!("CARGO_BIN_EXE_luksmith")), words);
        command.env("AWS_ACCESS_KEY_ID", S3_KEY.0);
        command.env("AWS_SECRET_ACCESS_KEY", S3_KEY.1);
        command
    }

    /// Another program with these words as its arguments.
    pub(crate) fn of(&self, program: &Path, words: &str) -> Command {
        let mut command = Command::new(program);
        command.args(words.split(' ')).current_dir(self.0.path());
        command
    }

    /// Runs a command that has to succeed, and returns what it says.
    #[track_caller]
    pub(crate) fn ok(&self, words: &str) -> String {
        succeeds(&mut self.command(words))
    }

    /// Runs a command that has to fail with this exit code, and returns what it says.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &str) -> String {
        let (found, said) = refused(&mut self.command(words));
        assert_eq!(found, code, "{words}: {said}");
        said
    }

    /// The UUID of a volume.
    pub(crate) fn uuid(&self, name: &str) -> String {
        let said = self.ok(&format!("info {name} --json"));
        let value: luksmith_formats::json::Value = said.parse().unwrap();
        value["uuid"].as_str().unwrap().to_owned()
    }
}
