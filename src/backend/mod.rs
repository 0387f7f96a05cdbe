//! What stores the bytes of a volume: blocking calls on `&self`, with ciphertext alone.
//!
//! A backend never sees plaintext: it takes and gives [`Sectors<Cipher>`], which only `crypt.rs` makes out of
//! plaintext. Parallelism comes from threads that call at the same time. Offsets and lengths are bytes, and
//! both are multiples of [`Geometry::block_size`].

pub mod file;
pub mod lock;
pub mod memory;
#[cfg(feature = "nbd")]
pub mod nbd;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::feature::MissingFeature;
use crate::sectors::{Cipher, Sectors};

/// The shape of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Geometry {
    /// The size in bytes.
    pub size: u64,
    /// The smallest unit of reading and writing, in bytes, a power of two: 1 for buffered files, what the
    /// device asks for with `O_DIRECT`.
    pub block_size: u32,
    /// Whether every change is refused with [`IoError::ReadOnly`].
    pub read_only: bool,
}

/// A storage of ciphertext.
pub trait Backend: Send + Sync {
    /// The shape as it is now: [`resize`](Self::resize) changes the size.
    fn geometry(&self) -> Geometry;

    /// Fills all of `into` with the bytes from `offset` on, or fails.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`] where the range is not all inside, and what the storage says.
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError>;

    /// Writes all of `from` at `offset`, or fails; a failure may leave a part written.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`] where the range is not all inside (nothing grows by being written), and what the
    /// storage says.
    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError>;

    /// Once this has returned, all that was written before has reached stable storage.
    ///
    /// # Errors
    /// What the storage says; what was written since the last flush may be lost then.
    fn flush(&self) -> Result<(), IoError>;

    /// Gives the range up. What a read returns afterwards is the storage's matter (files and memory: zeroes).
    ///
    /// # Errors
    /// [`IoError::Unsupported`] where the storage cannot; the range is unchanged then.
    fn discard(&self, range: Range<u64>) -> Result<(), IoError>;

    /// Makes the range read as zero bytes, keeping its space where the storage can.
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at).
    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError>;

    /// Changes the size; new bytes read as zero.
    ///
    /// # Errors
    /// [`IoError::Unsupported`] where the size is fixed.
    fn resize(&self, size: u64) -> Result<(), IoError>;

    /// Tells that the range will be read soon, so that the storage may bring it nearer. One that cannot does nothing.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`], and what the storage says.
    fn prefetch(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        self.geometry().check(Operation::Read, range.start, len)
    }
}

/// What was being done when an I/O error happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A flush to stable storage.
    Flush,
    /// Giving up a range.
    Discard,
    /// Zeroing a range.
    WriteZeroes,
    /// A change of size.
    Resize,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::WriteZeroes => "write of zeroes",
            Self::Resize => "resize",
        })
    }
}

/// Why a backend or a volume did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IoError {
    /// The range does not lie inside.
    #[error("{operation} of {len} bytes at byte {offset} reaches over the end at byte {size}")]
    OutOfRange {
        /// What was asked.
        operation: Operation,
        /// Where the range begins, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        len: u64,
        /// Where the storage or volume ends, in bytes.
        size: u64,
    },
    /// Opened for reading only.
    #[error("{0} refused: opened for reading only")]
    ReadOnly(Operation),
    /// Not a multiple of the unit.
    #[error("{operation} of {len} bytes at byte {offset} is not in whole units of {unit} bytes")]
    Unaligned {
        /// What was asked.
        operation: Operation,
        /// Where the range begins, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        len: u64,
        /// The unit, in bytes.
        unit: u32,
    },
    /// The storage, or the quota, is full.
    #[error("{operation} at byte {offset}: no space left")]
    NoSpace {
        /// What was asked.
        operation: Operation,
        /// Where, in bytes.
        offset: u64,
    },
    /// The storage failed.
    #[error("{operation} at byte {offset} failed")]
    Failed {
        /// What was asked.
        operation: Operation,
        /// Where, in bytes.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// This storage cannot do that.
    #[error("{0} is not possible on this storage")]
    Unsupported(Operation),
    /// What was to be read is compressed, which is not encrypted, and nobody said that it may be taken.
    #[error("the compressed cluster at byte {at} of the image is not encrypted")]
    Plaintext {
        /// Where, in bytes of the image.
        at: u64,
    },
    /// What was to be read needs a feature of this crate that is not enabled.
    #[error(transparent)]
    MissingFeature(#[from] MissingFeature),
    /// The tables of an image say what they must not.
    #[error("the image has {what}, at byte {at}")]
    Image {
        /// What is wrong.
        what: &'static str,
        /// Where, in bytes of the image.
        at: u64,
    },
}

impl IoError {
    /// The error for what the system said, told apart as far as callers need.
    pub fn from_os(operation: Operation, offset: u64, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { operation, offset }
            }
            io::ErrorKind::FileTooLarge => Self::NoSpace { operation, offset },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(operation),
            io::ErrorKind::Unsupported => Self::Unsupported(operation),
            _ => Self::Failed {
                operation,
                offset,
                source,
            },
        }
    }
}

impl From<IoError> for io::Error {
    fn from(error: IoError) -> Self {
        let kind = match &error {
            IoError::OutOfRange {
                operation: Operation::Read,
                ..
            } => io::ErrorKind::UnexpectedEof,
            IoError::OutOfRange { .. } | IoError::Unaligned { .. } => io::ErrorKind::InvalidInput,
            IoError::ReadOnly(_) => io::ErrorKind::ReadOnlyFilesystem,
            IoError::NoSpace { .. } => io::ErrorKind::StorageFull,
            IoError::Failed { source, .. } => source.kind(),
            IoError::Unsupported(_) | IoError::MissingFeature(_) => io::ErrorKind::Unsupported,
            IoError::Plaintext { .. } | IoError::Image { .. } => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

impl Geometry {
    /// `size` bytes, read and written at any offset and length.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            size,
            block_size: 1,
            read_only: false,
        }
    }

    /// With this smallest unit of reading and writing, in bytes: a power of two.
    #[must_use]
    pub fn with_block_size(self, block_size: u32) -> Self {
        Self { block_size, ..self }
    }

    /// Whether every change is refused.
    #[must_use]
    pub fn with_read_only(self, read_only: bool) -> Self {
        Self { read_only, ..self }
    }

    /// Checks that `len` bytes at `offset` lie inside and are in whole blocks.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`] or [`IoError::Unaligned`].
    pub fn check(&self, operation: Operation, offset: u64, len: u64) -> Result<(), IoError> {
        let size = self.size;
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(IoError::OutOfRange {
                operation,
                offset,
                len,
                size,
            });
        }
        let unit = self.block_size;
        if !offset.is_multiple_of(u64::from(unit)) || !len.is_multiple_of(u64::from(unit)) {
            return Err(IoError::Unaligned {
                operation,
                offset,
                len,
                unit,
            });
        }
        Ok(())
    }

    /// As [`check`](Self::check), for a change: it is refused where the storage is read-only.
    ///
    /// # Errors
    /// [`IoError::ReadOnly`], or as [`check`](Self::check).
    pub fn check_change(&self, operation: Operation, offset: u64, len: u64) -> Result<(), IoError> {
        if self.read_only {
            return Err(IoError::ReadOnly(operation));
        }
        self.check(operation, offset, len)
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<B: Backend + ?Sized> Backend for $pointer {
            fn geometry(&self) -> Geometry {
                (**self).geometry()
            }
            fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
                (**self).read_at(offset, into)
            }
            fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
                (**self).write_at(offset, from)
            }
            fn flush(&self) -> Result<(), IoError> {
                (**self).flush()
            }
            fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
                (**self).discard(range)
            }
            fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
                (**self).write_zeroes(range)
            }
            fn resize(&self, size: u64) -> Result<(), IoError> {
                (**self).resize(size)
            }
            fn prefetch(&self, range: Range<u64>) -> Result<(), IoError> {
                (**self).prefetch(range)
            }
        }
    )*};
}
forward!(Arc<B>, Box<B>, &B);

/// An error with its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
