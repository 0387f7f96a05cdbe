//! The plain ends of a bulk copy: the source that is encrypted, and the sink that takes decrypted
//! data.
//!
//! A sink is never a [`Backend`](crate::backend::Backend), which only stores ciphertext.

mod access;
mod begin;
#[cfg(feature = "nbd")]
mod export;
mod holes;
#[cfg(feature = "vet")]
mod image;
mod sink;
mod source;

pub use access::PlainAccess;
pub(super) use begin::image_in;
#[cfg(feature = "vet")]
pub use image::{DiskFormat, DiskImage};
pub use sink::PlainSink;
pub use source::PlainSource;

pub(super) use holes::runs_of_data;
pub(super) use sink::{check_device, check_size};
#[cfg(feature = "nbd")]
pub(super) use source::LOOKED_AT;
