//! Why a request was refused.

use std::convert::Infallible;

use super::kernel::Kernel;

/// Why a request was refused. The data is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XtsError {
    /// The key has a wrong size: AES-XTS has keys of 32 bytes (AES-128), 48 bytes (AES-192) and 64
    /// bytes (AES-256).
    #[error("an aes-xts key has 32, 48 or 64 bytes, not {0}")]
    KeySize(usize),
    /// This machine lacks the instructions of the kernel.
    #[error("xts kernel {0} needs instructions that this machine lacks")]
    NotAvailable(Kernel),
    /// The sector size is zero or not a whole number of blocks.
    #[error("a sector of {0} bytes is not a whole number of 16-byte blocks")]
    SectorSize(usize),
    /// The data is not a whole number of sectors.
    #[error("{len} bytes are not whole sectors of {sector_size}")]
    Length {
        /// The length of the data, in bytes.
        len: usize,
        /// The size of a sector, in bytes.
        sector_size: usize,
    },
    /// The windows do not have the length of the data.
    #[error("windows of {windows} bytes for {len} bytes of sectors")]
    Windows {
        /// The length of the data, in bytes.
        len: usize,
        /// The length of the windows, in bytes.
        windows: usize,
    },
}

impl From<Infallible> for XtsError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
