//! The command line of luksmith.
fn main() {}
