//! The byte layouts of disk image formats, as far as judging an image from a stranger needs them.
//!
//! Each file has the headers and table entries of one format as numbers; whether those numbers are good is judged by
//! who reads the image. Nothing here follows an offset, allocates by a number that was read, or can fail but by being
//! too short or by a wrong magic.

mod fields;
pub mod iso;
pub mod partitions;
pub mod qcow2;
pub mod qed;
pub mod signature;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;
