#![no_std]
//! Parsers and writers for LUKS1 and LUKS2 headers, the superblock of dm-integrity, NBD messages,
//! disk image formats, volumes in object stores, trusted local state, and the URIs of storage.
//!
//! The crate validates strictly, does no I/O and never handles a secret. It follows the *LUKS
//! On-Disk Format Specification* 1.2.3, the *LUKS2 On-Disk Format Specification* 1.1 and *The NBD
//! protocol*. Where the LUKS specifications say nothing, it follows cryptsetup.
//!
//! All input is treated as hostile. No function panics, indexes without a check, or allocates more
//! than a small multiple of its input. A refused header gives a [`FormatError`], which names the
//! field, its offset and the cause.
extern crate alloc;

mod authenticated;
pub mod cipher;
mod codec;
pub mod dm_integrity;
pub mod error;
pub mod hash;
pub mod image;
pub mod json;
pub mod limits;
pub mod luks1;
pub mod luks2;
pub mod nbd;
pub mod objects;
pub mod percent;
pub mod raw_text;
pub mod rbd;
pub mod text;
pub mod trust;
pub mod version;

pub use authenticated::AuthenticatedCipher;
pub use cipher::{BlockCipher, CipherError, CipherSpec, EssivHash, IvGenerator, Mode, Weakness};
pub use error::{FormatError, Kind};
pub use hash::{Hash, UnknownHash};
pub use limits::Limits;
pub use version::{MAGIC, Version};
