//! The byte layouts of disk image formats: the parts that are needed to check an image from an
//! untrusted source.
//!
//! Each file has the headers and table entries of one format, as numbers. The caller checks whether
//! the numbers are valid. Nothing here follows an offset, or allocates memory by a number that was
//! read. Parsing fails only if there are too few bytes or the signature is wrong.

pub(crate) mod fields;
pub mod iso;
pub mod partitions;
pub mod qcow2;
pub mod qed;
pub mod signature;
pub mod udf;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;
