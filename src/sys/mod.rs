//! What luksmith asks of the operating system directly: pages of memory, locks on bytes of a file, and a process
//! that leaves no core file.

pub(crate) mod memory;
pub(crate) mod ofd;
mod process;

pub use process::harden;
