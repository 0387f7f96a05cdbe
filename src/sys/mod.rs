//! System calls that luksmith makes directly: memory mappings, locks on bytes of a file, folders
//! that other users may write to, block devices, access control lists, the peer and the file of a
//! socket, the standard descriptors, and hardening of the process.

#[cfg(any(test, feature = "nbd"))]
pub(crate) mod acl;
pub(crate) mod block;
#[cfg(feature = "nbd")]
pub(crate) mod bound;
pub(crate) mod folder;
pub(crate) mod memory;
pub(crate) mod ofd;
#[cfg(feature = "nbd")]
pub(crate) mod peer;
pub(crate) mod process;
#[cfg(feature = "cli")]
mod standard;

pub use process::{end_with_parent, harden};
#[cfg(feature = "cli")]
pub use standard::{stdin_was_closed, stdout_was_closed};
