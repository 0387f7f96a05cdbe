//! System calls that luksmith makes directly: memory mappings, locks on bytes of a file, folders
//! that other users may write to, block devices, access control lists, the peer and the file of a
//! socket, memory that another process shares, keys in the kernel's keyring, the standard
//! descriptors and those of a child process, hardening of the process, and shared libraries.

pub(crate) mod acl;
pub(crate) mod block;
#[cfg(feature = "nbd")]
pub(crate) mod bound;
pub(crate) mod child;
pub(crate) mod folder;
#[cfg(feature = "fuse")]
pub(crate) mod fuse;
pub(crate) mod keyring;
#[cfg(any(feature = "libvirt", feature = "rbd"))]
pub(crate) mod library;
pub(crate) mod memory;
#[cfg(feature = "fuse")]
pub(crate) mod mounts;
pub(crate) mod ofd;
#[cfg(any(feature = "nbd", feature = "tpm2", feature = "vhost-user"))]
pub(crate) mod peer;
pub(crate) mod process;
#[cfg(feature = "vhost-user")]
pub(crate) mod shared_memory;
#[cfg(feature = "cli")]
pub(crate) mod standard;

#[cfg(any(feature = "libvirt", feature = "rbd"))]
pub use library::LoadError;
pub use process::{end_with_parent, harden};
#[cfg(feature = "cli")]
pub use standard::{stdin_was_closed, stdout_was_closed};
