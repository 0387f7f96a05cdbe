#![no_std]
//! The byte layouts of LUKS1 and LUKS2 headers, of NBD's messages and of disk image formats, strictly validated, without I/O and without
//! secrets.
//!
//! The references are the *LUKS On-Disk Format Specification* 1.2.3, the *LUKS2 On-Disk Format Specification* 1.1
//! (where they are silent, cryptsetup is) and *The NBD protocol*.
//!
//! Everything that comes in is taken for hostile: nothing here panics, indexes unchecked, or allocates more
//! than a small multiple of the bytes that it is given. Every refusal is a [`FormatError`] that names the
//! field, its place and the cause.
extern crate alloc;

pub mod cipher;
mod codec;
pub mod error;
pub mod hash;
pub mod image;
pub mod limits;
pub mod luks1;
pub mod luks2;
pub mod nbd;
pub mod version;

pub use cipher::{BlockCipher, CipherError, CipherSpec, IvGenerator, Mode};
pub use error::{FormatError, Kind};
pub use hash::{Hash, UnknownHash};
pub use limits::Limits;
pub use version::{MAGIC, Version};
