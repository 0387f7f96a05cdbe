//! Tasks on a libvirt: volumes with their secrets, disks, new passphrases and new volume keys.

pub mod attach;
mod ceph;
pub mod definition;
pub mod disk;
pub mod identity;
mod inventory;
mod journal;
pub mod provision;
pub mod rekey;
pub mod rotate;
pub mod secrets;
mod taken_back;

pub use journal::DamagedJournal;
