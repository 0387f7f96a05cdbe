//! Does every backend keep the contract of `Backend`, and does the test suite for that contract
//! find each way to break it?

#![allow(missing_docs)]
#![allow(clippy::print_stderr)] // what is skipped, and why

mod broken;
mod ours;
