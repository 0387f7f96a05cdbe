//! Do volumes in object stores keep what was flushed, whatever happens to the writer and the store?

#![allow(missing_docs)]
#![allow(clippy::print_stderr)] // what is skipped, and why

mod backend;
#[cfg(feature = "cli")]
mod commands;
#[cfg(feature = "s3")]
mod crash;
mod faults;
mod histories;
mod journal;
#[cfg(feature = "cli")]
mod program;
#[cfg(feature = "cli")]
mod recorded;
#[cfg(feature = "s3")]
mod s3;
mod writers;
