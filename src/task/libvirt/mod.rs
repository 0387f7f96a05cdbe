//! Tasks on a libvirt: volumes with their secrets, disks, and new passphrases.

pub mod attach;
pub mod definition;
pub mod disk;
pub mod identity;
pub mod provision;
pub mod rotate;
pub mod secrets;
mod taken_back;
