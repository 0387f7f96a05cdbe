//! What luksmith asks of the operating system directly: pages of memory, and a process that leaves no core file.

pub(crate) mod memory;
mod process;

pub use process::harden;
