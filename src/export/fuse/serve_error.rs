//! The errors of a mounted file as a whole.

use std::io;

use crate::backend::IoError;

/// Why a mounted file could not be served or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The kernel has an older FUSE than 7.28.
    #[error("the FUSE of this kernel is too old: Linux 4.20 or later is needed")]
    OldKernel,
    /// The system refused something that is needed to serve the file.
    #[error("cannot {doing}")]
    System {
        /// The operation that failed.
        doing: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// Data that programs have written may not be on stable storage.
    #[error("the last flush failed")]
    Flush(#[source] IoError),
}
