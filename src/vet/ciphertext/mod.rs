//! Searches a storage for data that is not encrypted, without a key.
//!
//! A storage that should hold only ciphertext may contain plaintext: a guest wrote to it without
//! the encryption, an image was copied over it, or a volume was created over old data. [`verify`]
//! reads a storage and recognises plaintext by its statistics ([`randomness`]) and by the
//! signatures of file systems and files ([`signature`]). Each area of a LUKS volume has rules of
//! its own ([`areas`]).
//!
//! The search can show that data is not ciphertext. It cannot show that data is ciphertext:
//! compressed data, the ciphertext of another key, and the ciphertext of a cipher that is used in
//! an insecure way look the same. It never has a key, and changes nothing.

pub mod areas;
mod pieces;
pub mod randomness;
mod read;
mod regions;
mod scan;
pub mod signature;

pub use pieces::{PIECE, Sample};
pub use regions::{MAX_REGIONS, Region, Regions, Why};
pub use scan::{AreaReport, Report, Tally, VerifyOptions, verify};

use luksmith_formats::FormatError;

use crate::backend::IoError;

/// Why a storage could not be searched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VetError {
    /// No copy of the LUKS header can be read, so the place of the data is unknown.
    #[error("the LUKS header cannot be read")]
    Header(#[source] FormatError),
    /// There is no LUKS header.
    #[error("there is no LUKS header")]
    NoHeader,
    /// The data has tags, which are no ciphertext, and neither are the superblock and the journal
    /// of dm-integrity.
    #[error(
        "the data has authenticated encryption: its ciphertext cannot be told from the tags and the \
         journal of dm-integrity"
    )]
    Tagged,
    /// The storage failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The interrupt was set.
    #[error("interrupted")]
    Interrupted,
}
