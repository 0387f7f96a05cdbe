//! libvirt: its secrets, domains, storage pools and volumes, through the installed client library
//! (`libvirt.so.0`).
//!
//! The library is loaded when the first [`Connection`] is opened. Where it is not installed,
//! opening fails with [`LibvirtError::Library`], and the rest of this crate works. A
//! connection URI may name a remote host.
//!
//! Each type here is thin: it owns one libvirt object and frees it when dropped, and each method
//! is one call. Strings are copied, and libvirt's originals freed as its documentation asks. The
//! value of a secret is copied into locked memory, and libvirt's copy is wiped. So that the
//! library leaves no further copy, glibc's malloc overwrites all memory that the process frees
//! (`M_PERTURB`) while one of these objects exists.
//!
//! No call asks a person anything. A login has to be configured (`auth.conf`), or is denied.
//!
//! Reference: <https://libvirt.org/html/>. Works with libvirt 4.5 and later.

mod block_job;
mod connection;
mod domain;
mod error;
mod library;
mod pool;
mod secret;
mod transfer;
mod users;
mod value;
mod volume;
pub mod xml;

pub use block_job::{BlockCopy, BlockJob};
pub use connection::{ConnectOptions, Connection};
pub use domain::{Affect, BlockInfo, Domain, DomainView};
pub use error::{LibvirtError, Reply};
pub use pool::{Pool, PoolInfo};
pub use secret::{MAX_SECRET, ParseSecretError, Secret};
pub use users::{User, UserKind, Users, users};
pub use value::{ValueError, ValueScheme, ValueSource};
pub use volume::{StorageVolume, VolumeInfo};
