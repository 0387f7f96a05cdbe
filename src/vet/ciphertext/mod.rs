//! Looks at volumes without any key: does what a storage holds look like ciphertext?
//!
//! A storage that was meant to see ciphertext alone may hold plaintext all the same: a guest wrote to it past the
//! encryption, an image was copied over it, a volume was made over old data. [`verify`] reads a storage, tells ciphertext from
//! what is none by its statistics ([`randomness`]) and by the signatures of file systems and files ([`signature`]), and leaves
//! the areas of a LUKS header to their own judgement ([`areas`]).
//!
//! It can show that something is not ciphertext. It cannot show that something is: compressed data, the ciphertext of
//! another key and a cipher used in a bad way look the same. It never holds a key, and changes nothing.

pub mod areas;
pub mod randomness;
mod read;
mod regions;
mod scan;
pub mod signature;

pub use regions::{MAX_REGIONS, Region, Regions, Why};
pub use scan::{AreaReport, PIECE, Report, Sample, Tally, VerifyOptions, verify};

use luksmith_formats::FormatError;

use crate::backend::IoError;

/// Why a storage could not be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VetError {
    /// There is a LUKS header, of which no copy can be read: where the data begins is not known.
    #[error("the LUKS header cannot be read")]
    Header(#[source] FormatError),
    /// Where a header was to be, there is none.
    #[error("there is no LUKS header")]
    NoHeader,
    /// The storage failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Asked to stop.
    #[error("interrupted")]
    Interrupted,
}
