//! LUKS1: one header of 592 bytes, without a checksum, and eight keyslots (*LUKS On-Disk Format
//! Specification* 1.2.3, section 2).
//!
//! No alignment is assumed: images of version 1.0 have the first key material at sector 2, and QEMU
//! writes other payload offsets than cryptsetup.

mod header;
mod keyslot;
mod repair;

pub use header::Header;
pub use keyslot::Keyslot;
pub use repair::Fix;

/// The length of the header in bytes.
pub const HEADER_SIZE: usize = 592;
/// The number of keyslots.
pub const KEYSLOTS: usize = 8;
/// The anti-forensic stripes of every keyslot.
pub const STRIPES: u32 = 4000;
/// The unit of offsets in LUKS1, in bytes.
pub const SECTOR_SIZE: u64 = 512;
