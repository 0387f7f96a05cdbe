//! Checks images from untrusted sources.
//!
//! [`inspect`] checks that an image is valid in its declared format, and that a program which opens
//! it in this format reads nothing but the image. It follows no reference, writes nothing, needs no
//! key, and reads a bounded part of the image. [`ciphertext`] searches a storage for data that is
//! not encrypted.

pub mod ciphertext;
mod compressed;
mod extents;
mod finding;
mod format;
mod gpt;
mod inspect;
mod iso;
mod luks;
mod mbr;
mod policy;
mod qcow2;
mod qed;
mod recognise;
mod report;
mod source;
mod udf;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

pub(crate) use finding::escaped;
pub use finding::{Check, Finding, Severity};
pub use format::{Encryption, Feature, Format};
pub(crate) use inspect::headers;
pub use inspect::{checks, inspect};
pub(crate) use policy::toml_fault;
pub use policy::{Costs, EncryptionRule, Policy, PolicyError};
pub use recognise::identify;
pub use report::{Report, Verdict};
