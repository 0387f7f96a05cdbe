//! Finds the peers, and runs them.
//!
//! A peer is looked for in `PATH`, in the system directories that a user's `PATH` lacks, and in
//! `target/peers/bin`, where `./test` puts what it unpacks without installing it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program `name`, or `None` after saying that the test is skipped.
///
/// # Panics
///
/// If the program is missing and `CI=true`: see [`skip`].
pub fn find(name: &str) -> Option<PathBuf> {
    let found = search(name);
    if found.is_none() {
        skip(name);
    }
    found
}

/// Says that the calling test is skipped because `what` is missing.
///
/// # Panics
///
/// If `CI=true`, unless `./test` says by `LUKSMITH_UNPACKAGED` that no package of this system has
/// `what`.
#[allow(
    clippy::print_stderr,
    reason = "the reader of a test run is told what did not run"
)]
pub fn skip(what: &str) {
    let unpackaged = std::env::var("LUKSMITH_UNPACKAGED").unwrap_or_default();
    assert!(
        std::env::var_os("CI").is_none_or(|value| value != "true")
            || unpackaged.split(' ').any(|name| name == what),
        "{what} not found, and CI=true: ./test installs it"
    );
    eprintln!("skipped: {what} not found");
}

fn search(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into(), unpacked("bin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The path of a file or folder below `target/peers`, which `./test` fills.
pub fn unpacked(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/peers")
        .join(name)
}

/// Runs a peer to its end, without standard input.
///
/// # Panics
///
/// If it does not start.
pub fn output(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"))
}

/// Runs a peer that must succeed, and returns its standard output.
///
/// qemu-img 7.2 measures the cost of a new keyslot, which fails at times on a fast or a busy
/// machine: "Unable to get accurate CPU usage". Then it runs again.
///
/// # Panics
///
/// If it does not start, or fails.
pub fn run(command: &mut Command) -> Vec<u8> {
    let mut tries = 100;
    loop {
        let output = output(command);
        if output.status.success() {
            return output.stdout;
        }
        let error = String::from_utf8_lossy(&output.stderr);
        tries -= 1;
        assert!(
            tries > 0 && error.contains("accurate CPU usage"),
            "{command:?} failed with {}: {error}",
            output.status
        );
    }
}
