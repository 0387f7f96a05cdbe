//! Do volumes work in a real Ceph, and do librbd's encryption and ours open each other's volumes?

#![allow(missing_docs)]
#![allow(clippy::print_stderr)] // what is skipped, and why

mod backend;
mod commands;
mod interop;
mod locks;
mod program;
mod recorded;
mod stored;
