//! The command line: its output, its exit codes, its questions.
//!
//! `transcripts/*.trycmd` are sessions that can be read as documentation. Tests that need state, a
//! terminal or a signal are written in Rust.

mod benchmark;
mod busy;
mod checked_copy;
mod completions;
mod copy;
mod docs;
mod early;
mod encrypt_in_place;
mod force;
mod foreign;
mod help;
mod helpers;
mod integrity;
mod interrupt;
mod key_stores;
mod keys;
mod libvirt;
mod look;
mod loss;
mod memlock;
mod other_users;
mod overlay;
mod overwritten;
mod parts;
mod prompt;
mod races;
mod reencrypt;
mod rescue;
mod schema;
mod session;
mod sources;
mod streams;
mod terminal;
mod undo;
mod uris;
mod verify;
mod weak;

#[test]
fn transcripts() {
    trycmd::TestCases::new()
        .case("tests/cli/transcripts/*.trycmd")
        .env("RUST_BACKTRACE", "0");
}
