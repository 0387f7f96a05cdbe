//! Are the units and the packages right, and does a real systemd run the units?
//!
//! - `units`: what systemd-analyze says of them, and what they run.
//! - `contents`: what Cargo.toml puts into packages.
//! - `guest`: a virtual machine whose first process is systemd serves a file and a device.

#![allow(
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test"
)]

mod contents;
mod guest;
mod units;

use std::path::PathBuf;

/// A file of the repository.
fn of_repository(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text_of(name: &str) -> String {
    std::fs::read_to_string(of_repository(name)).unwrap()
}
