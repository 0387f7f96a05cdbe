//! The errors of a server as a whole.

use std::io;

use crate::backend::IoError;

/// Why a server could not start or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A guest cannot have blocks of this size, in bytes.
    #[error("blocks have 512, 1024, 2048 or 4096 bytes, not {0}")]
    BlockSize(u32),
    /// The system refused something that every server needs.
    #[error("cannot {doing}")]
    System {
        /// The operation that failed.
        doing: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// Data that guests have written may not be on stable storage.
    #[error("the last flush of export \"{name}\" failed")]
    Flush {
        /// The export's name.
        name: String,
        /// The error of the storage.
        source: IoError,
    },
}
