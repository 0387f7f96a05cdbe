//! Tasks on a libvirt: volumes with their secrets, disks, and new passphrases.

pub mod attach;
pub mod disk;
pub mod identity;
pub mod provision;
pub mod rotate;
mod taken_back;
