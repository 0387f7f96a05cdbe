//! libvirt: its secrets, domains, storage pools and volumes, by the library that is installed (`libvirt.so.0`).
//!
//! The library is loaded when the first [`Connection`] is opened: where it is not installed, everything else works, and opening says
//! what is missing ([`LibvirtError::NotInstalled`]). Any connection URI will do, remote ones too.
//!
//! Each type here is thin: it owns one of libvirt's objects and gives it back when dropped, and each method is one call. Texts are
//! copied out and freed as libvirt wants it; what a secret holds is copied into locked memory and libvirt's copy is wiped. So that the
//! library leaves no other, glibc's malloc overwrites what is freed (`M_PERTURB`), everywhere in the process, while there is one of these
//! objects. Nothing asks a person anything: who must log in is configured for it (`auth.conf`), or is told that it is denied.
//!
//! Reference: <https://libvirt.org/html/>. Works with libvirt 4.5 and later.

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

pub use connection::{ConnectOptions, Connection};
pub use domain::{Affect, BlockInfo, Domain, DomainView};
pub use error::{LibvirtError, Reply};
pub use pool::{Pool, PoolInfo};
pub use secret::{MAX_SECRET, ParseSecretError, Secret};
pub use users::{User, UserKind, Users, users};
pub use value::{ValueError, ValueScheme, ValueSource};
pub use volume::{StorageVolume, VolumeInfo};
