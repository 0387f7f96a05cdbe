//! The storage of a volume's ciphertext: files, devices, memory, NBD exports, images in Ceph, and
//! storage of your own that implements [`Backend`].
//!
//! A backend never sees plaintext. It reads and writes [`Sectors<Cipher>`], which only `crypt.rs`
//! makes from plaintext. Calls block; parallelism comes from threads that call at the same time.

pub mod conformance;
mod extents;
pub mod file;
mod holes;
#[cfg(feature = "http")]
pub mod http;
pub mod lock;
pub mod memory;
#[cfg(feature = "nbd")]
pub mod nbd;
mod open_files;
#[cfg(feature = "rbd")]
pub mod rbd;
pub mod room;
pub mod section;

use std::io;
use std::ops::Range;
use std::sync::Arc;

pub use extents::{Allocation, Extents};

use crate::feature::MissingFeature;
use crate::sectors::{Cipher, Sectors};

/// The size of a storage, and what it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Geometry {
    /// The size in bytes.
    pub size: u64,
    /// The unit of reading and writing in bytes, a power of two: 1 for buffered files, and what the
    /// device requires with `O_DIRECT`.
    pub block_size: u32,
    /// Whether every change is refused with [`IoError::ReadOnly`].
    pub read_only: bool,
}

/// A storage of ciphertext.
///
/// # Contract
///
/// [`conformance::check`] tests what follows.
///
/// - **Contents.** A read returns what was written last. Bytes that were never written can be read:
///   their value is the storage's choice, but it stays the same. A write changes nothing outside
///   its range. A read fills all of its buffer. A buffer keeps its length, also where a read fails.
/// - **Bounds.** Offsets and lengths are bytes. A range that is not all inside the storage is
///   refused with [`IoError::OutOfRange`], also where its end exceeds 2^64, and nothing grows by a
///   write. A range that is not in whole blocks of [`Geometry::block_size`] is refused with
///   [`IoError::Unaligned`]. A refused call changes nothing and does not disturb later calls.
///   [`Geometry::check`] and [`Geometry::check_change`] do all that.
/// - **Length zero.** A call of length zero succeeds at any block from the start to the end of the
///   storage, and changes nothing.
/// - **Threads.** Calls may come from several threads at the same time. Calls for different ranges
///   do not disturb each other, even in the same page. Where calls overlap, each block is that of
///   one call: after two writes it holds what one of them wrote, and a read sees it before or after
///   a write, never a mix. A call that begins after another one has returned sees its effect.
/// - **Durability.** What was written before [`flush`](Self::flush) returned is still there when
///   the storage is opened again, also after a power failure. Before that, a power failure may
///   leave or lose each written block.
/// - **Read-only storage** refuses every change with [`IoError::ReadOnly`].
/// - **No panics**, whatever the arguments are.
///
/// - **Holes.** What [`extents`](Self::extents) reports as a hole reads as zeroes until it is
///   written.
///
/// [`discard`](Self::discard), [`reserve`](Self::reserve) and [`resize`](Self::resize) may be
/// [`IoError::Unsupported`]; then they change nothing. This error may take precedence over those
/// above.
pub trait Backend: Send + Sync {
    /// The geometry. It stays the same until [`resize`](Self::resize) changes the size.
    fn geometry(&self) -> Geometry;

    /// Fills all of `into` with the bytes from `offset` on.
    ///
    /// # Errors
    /// As the contract says, and what the storage reports. The bytes of the buffer are arbitrary
    /// then, its length is not.
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError>;

    /// Writes all of `from` at `offset`.
    ///
    /// # Errors
    /// As the contract says, and what the storage reports. A part may have been written then.
    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError>;

    /// Makes everything durable that was written before this call.
    ///
    /// # Errors
    /// What the storage reports. Everything that was written since the last flush may be lost then.
    fn flush(&self) -> Result<(), IoError>;

    /// Whether [`flush`](Self::flush) does so. Some servers do not offer it, and changes may be
    /// lost there although a flush succeeded.
    fn can_flush(&self) -> bool {
        true
    }

    /// Gives up the contents of the range, so that the storage can free its space. What a read of
    /// the range returns afterwards is the storage's choice; files and memory return zeroes. The
    /// range can be written again.
    ///
    /// # Errors
    /// [`IoError::Unsupported`] where the storage cannot do this; otherwise as for
    /// [`write_at`](Self::write_at).
    fn discard(&self, range: Range<u64>) -> Result<(), IoError>;

    /// Makes the range read as zeroes. The storage keeps its space reserved if it can.
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at).
    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError>;

    /// Whether a server answers each call. Callers then make few long calls instead of many short
    /// ones, since each of them waits for an answer.
    fn is_remote(&self) -> bool {
        false
    }

    /// The unit in bytes that a power failure leaves old or new, but never torn, if the storage
    /// promises one: the physical block of a device. A file promises none.
    fn atomic_unit(&self) -> Option<u32> {
        None
    }

    /// Reserves the space of the range, so that later writes to it do not fail for lack of space.
    /// Its contents stay.
    ///
    /// # Errors
    /// [`IoError::Unsupported`] where the storage cannot do this, [`IoError::NoSpace`] where it has
    /// not enough space, and otherwise as for [`write_at`](Self::write_at).
    fn reserve(&self, range: Range<u64>) -> Result<(), IoError> {
        let _ = range;
        Err(IoError::Unsupported(Operation::Reserve))
    }

    /// Changes the size. What stays keeps its contents, and new bytes read as zeroes, even where
    /// the storage was larger before.
    ///
    /// # Errors
    /// [`IoError::Unsupported`] where the size is fixed, and what the storage reports.
    fn resize(&self, size: u64) -> Result<(), IoError>;

    /// Announces that the range will be read soon. A storage that can make use of this begins to
    /// read it; the others do nothing.
    ///
    /// # Errors
    /// As for [`read_at`](Self::read_at).
    fn prefetch(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        self.geometry().check(Operation::Read, range.start, len)
    }

    /// Which parts of the range the storage has data for, from its start on. The answer may end
    /// before the range does, but not at its start. The range need not be in whole blocks. A
    /// storage that does not know says that all is data.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`], and what the storage reports.
    fn extents(&self, range: Range<u64>) -> Result<Extents, IoError> {
        check_extents(self.geometry(), &range)?;
        let mut extents = Extents::new();
        extents::push(&mut extents, range.end - range.start, Allocation::Data);
        Ok(extents)
    }
}

#[cfg(feature = "objects")]
pub(crate) use extents::push as push_extent;

/// Checks the range of a call of [`Backend::extents`].
pub(crate) fn check_extents(geometry: Geometry, range: &Range<u64>) -> Result<(), IoError> {
    let bytes = geometry.with_block_size(1);
    let len = range.end.saturating_sub(range.start);
    bytes.check(Operation::Extents, range.start, len)
}

/// The operation that an I/O error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A flush to stable storage.
    Flush,
    /// A discard of a range.
    Discard,
    /// A write of zeroes to a range.
    WriteZeroes,
    /// A reservation of space.
    Reserve,
    /// A change of size.
    Resize,
    /// A question which parts hold data.
    Extents,
    /// A move of the content.
    Move,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::WriteZeroes => "write of zeroes",
            Self::Reserve => "reservation",
            Self::Resize => "resize",
            Self::Extents => "search for holes",
            Self::Move => "move of the content",
        })
    }
}

/// Why an operation of a backend or a volume failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IoError {
    /// The range is not inside of the storage or volume.
    #[error("{operation} of {len} bytes at byte {offset} extends past the end at byte {size}")]
    OutOfRange {
        /// The operation.
        operation: Operation,
        /// The start of the range, in bytes.
        offset: u64,
        /// The length of the range, in bytes.
        len: u64,
        /// The size of the storage or volume, in bytes.
        size: u64,
    },
    /// The storage or volume is open for reading only.
    #[error("{0} refused: opened for reading only")]
    ReadOnly(Operation),
    /// The range is not a multiple of the unit.
    #[error("{operation} of {len} bytes at byte {offset} is not in whole units of {unit} bytes")]
    Unaligned {
        /// The operation.
        operation: Operation,
        /// The start of the range, in bytes.
        offset: u64,
        /// The length of the range, in bytes.
        len: u64,
        /// The unit, in bytes.
        unit: u32,
    },
    /// The storage, or the quota, is full.
    #[error("{operation} at byte {offset}: no space left")]
    NoSpace {
        /// The operation.
        operation: Operation,
        /// The offset, in bytes.
        offset: u64,
    },
    /// The file may not be as large: that is the limit of its file system, or of this process.
    #[error(
        "{operation} at byte {offset}: no file may be as large here (the limit of the file system, \
         or of the process: `ulimit -f`)"
    )]
    TooLarge {
        /// The operation.
        operation: Operation,
        /// The offset, in bytes.
        offset: u64,
    },
    /// The storage failed.
    #[error("{operation} at byte {offset} failed")]
    Failed {
        /// The operation.
        operation: Operation,
        /// The offset, in bytes.
        offset: u64,
        /// The error of the system.
        source: io::Error,
    },
    /// Another program has the lock of the storage by now, and may have changed it. From then on
    /// every call fails with this.
    #[error("{0} refused: the lock was lost, and another program may have changed the data")]
    LockLost(Operation),
    /// This storage does not support the operation.
    #[error("{0} is not possible on this storage")]
    Unsupported(Operation),
    /// The data is in a compressed cluster, which is not encrypted, and the caller has not agreed
    /// to read those.
    #[error("the compressed cluster at byte {at} of the image is not encrypted")]
    Plaintext {
        /// The offset in the image, in bytes.
        at: u64,
    },
    /// The data needs a feature of this crate that is not enabled.
    #[error(transparent)]
    MissingFeature(#[from] MissingFeature),
    /// The tables of an image are damaged.
    #[error("the image has {what}, at byte {at}")]
    Image {
        /// What is wrong.
        what: &'static str,
        /// The offset in the image, in bytes.
        at: u64,
    },
    /// The storage has other data than was written there, by the tags that this host keeps.
    #[error(
        "the data at byte {offset} of the storage is not what was written there: the storage has \
         changed it or rolled it back, or another program has written to the volume"
    )]
    Altered {
        /// The offset of the block of 4096 bytes, in bytes.
        offset: u64,
    },
    /// A sector does not match the tag that dm-integrity keeps of it.
    #[error(
        "the {len} bytes at byte {offset} of the volume do not match their tag: the storage has \
         changed them, or they were never written"
    )]
    TagMismatch {
        /// The offset of the sector in the volume, in bytes.
        offset: u64,
        /// The length of the sector, in bytes.
        len: u32,
    },
    /// The memory with the bytes of a write was taken away by its owner. They were not written.
    #[error("{operation} at byte {offset}: the memory with its bytes was taken away")]
    SourceLost {
        /// The operation.
        operation: Operation,
        /// The offset, in bytes.
        offset: u64,
    },
}

impl IoError {
    /// Converts an error of the system. Kinds of errors that callers distinguish become variants of
    /// their own.
    pub fn from_os(operation: Operation, offset: u64, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { operation, offset }
            }
            io::ErrorKind::FileTooLarge => Self::TooLarge { operation, offset },
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
            IoError::TooLarge { .. } => io::ErrorKind::FileTooLarge,
            IoError::Failed { source, .. } => source.kind(),
            IoError::Unsupported(_) | IoError::MissingFeature(_) => io::ErrorKind::Unsupported,
            IoError::Plaintext { .. }
            | IoError::Image { .. }
            | IoError::Altered { .. }
            | IoError::TagMismatch { .. } => io::ErrorKind::InvalidData,
            IoError::LockLost(_) => io::ErrorKind::ResourceBusy,
            IoError::SourceLost { .. } => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}

impl Geometry {
    /// A storage of `size` bytes, which is read and written at any offset and length.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            size,
            block_size: 1,
            read_only: false,
        }
    }

    /// Sets the unit of reading and writing in bytes, a power of two.
    #[must_use]
    pub fn with_block_size(self, block_size: u32) -> Self {
        Self { block_size, ..self }
    }

    /// Sets whether every change is refused.
    #[must_use]
    pub fn with_read_only(self, read_only: bool) -> Self {
        Self { read_only, ..self }
    }

    /// Checks that `len` bytes at `offset` are inside of the storage, and are whole blocks.
    ///
    /// # Errors
    /// Returns [`IoError::OutOfRange`] or [`IoError::Unaligned`].
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

    /// Like [`check`](Self::check), for a change, which is also refused if the storage is
    /// read-only.
    ///
    /// # Errors
    /// Returns [`IoError::ReadOnly`], or the errors of [`check`](Self::check).
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
            fn can_flush(&self) -> bool {
                (**self).can_flush()
            }
            fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
                (**self).discard(range)
            }
            fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
                (**self).write_zeroes(range)
            }
            fn is_remote(&self) -> bool {
                (**self).is_remote()
            }
            fn atomic_unit(&self) -> Option<u32> {
                (**self).atomic_unit()
            }
            fn reserve(&self, range: Range<u64>) -> Result<(), IoError> {
                (**self).reserve(range)
            }
            fn resize(&self, size: u64) -> Result<(), IoError> {
                (**self).resize(size)
            }
            fn prefetch(&self, range: Range<u64>) -> Result<(), IoError> {
                (**self).prefetch(range)
            }
            fn extents(&self, range: Range<u64>) -> Result<Extents, IoError> {
                (**self).extents(range)
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
