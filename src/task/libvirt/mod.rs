//! Tasks on a libvirt: volumes with their secrets, disks, and new passphrases.

pub mod disk;
pub mod rotate;
