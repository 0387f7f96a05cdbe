//! The errors of a server as a whole.

use std::io;

use crate::backend::IoError;

/// Why a server could not start or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Two exports have the same name.
    #[error("two exports are named \"{0}\"")]
    SameName(String),
    /// A name or description cannot be a string of the protocol.
    #[error("the name or description of export \"{name}\" is not valid in NBD")]
    BadText {
        /// The export's name.
        name: String,
        /// What is wrong.
        source: luksmith_formats::FormatError,
    },
    /// The system refused something that every server needs.
    #[error("cannot {doing}")]
    System {
        /// The operation that failed.
        doing: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// Data that clients have written may not be on stable storage.
    #[error("the last flush of export \"{name}\" failed")]
    Flush {
        /// The export's name.
        name: String,
        /// The error of the storage.
        source: IoError,
    },
}
