//! libvirt: the XML of its secrets, storage volumes and disks.

pub mod xml;
