//! The command line: what it prints, how it exits, what it asks.
//!
//! `transcripts/*.trycmd` are sessions that read like documentation; what needs state, a terminal or a signal is Rust.

mod benchmark;
mod busy;
mod docs;
mod force;
mod help;
mod interrupt;
mod keys;
mod libvirt;
mod loss;
mod prompt;
mod session;
mod streams;
mod uris;
mod verify;

#[test]
fn transcripts() {
    trycmd::TestCases::new()
        .case("tests/cli/transcripts/*.trycmd")
        .env("RUST_BACKTRACE", "0");
}
