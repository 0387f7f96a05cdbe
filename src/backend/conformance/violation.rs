//! The clauses of the contract, and the violation of one.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A clause of the contract of [`Backend`](crate::backend::Backend).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Clause {
    /// The storage can be opened, also a second time after it was closed.
    Open,
    /// The block size is a power of two, and the geometry stays the same while nothing is resized.
    Geometry,
    /// A read returns what was written last, and a write changes nothing else.
    Contents,
    /// Bytes that were never written can be read, and read the same every time.
    Unwritten,
    /// A read fills all of its buffer, whose length never changes.
    WholeBuffer,
    /// A request of length zero succeeds anywhere from the start to the end, and changes nothing.
    ZeroLength,
    /// A range that is not all inside is refused with `OutOfRange`. Nothing changes or grows.
    OutOfRange,
    /// A range whose end exceeds 2^64 is refused with `OutOfRange`.
    NoWrapAround,
    /// A range that is not in whole blocks is refused with `Unaligned`. Nothing changes.
    WholeBlocks,
    /// A refused request does not disturb later ones.
    AfterRefusal,
    /// After `write_zeroes` the range reads as zeroes, everything else as before.
    WriteZeroes,
    /// `discard` changes nothing outside its range, which can be read and written afterwards. Where
    /// it is `Unsupported`, it changes nothing at all.
    Discard,
    /// `reserve` changes nothing, even where it is `Unsupported`.
    Reserve,
    /// `prefetch` changes nothing.
    Prefetch,
    /// The extents begin where the range does, are within it and not empty, and a hole reads as
    /// zeroes.
    Extents,
    /// Requests of several threads for different ranges do not disturb each other.
    Threads,
    /// Where requests overlap, every block is that of one request.
    Overlap,
    /// A request that begins after another one has returned sees its effect, on any thread.
    Order,
    /// What was flushed is there when the storage is opened again.
    Flush,
    /// `resize` keeps what stays, and new bytes read as zeroes. Where it is `Unsupported`, it
    /// changes nothing.
    Resize,
    /// A storage that was opened for reading only refuses every change with `ReadOnly`.
    ReadOnly,
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "the storage can be opened",
            Self::Geometry => "the geometry is valid and stays the same",
            Self::Contents => "a read returns what was written last",
            Self::Unwritten => "bytes that were never written can be read",
            Self::WholeBuffer => "a read fills all of its buffer",
            Self::ZeroLength => "a request of length zero succeeds and changes nothing",
            Self::OutOfRange => "a range that is not all inside is refused",
            Self::NoWrapAround => "a range whose end exceeds 2^64 is refused",
            Self::WholeBlocks => "a range that is not in whole blocks is refused",
            Self::AfterRefusal => "a refused request does not disturb later ones",
            Self::WriteZeroes => "write_zeroes makes its range zero and nothing else",
            Self::Discard => "discard changes nothing outside its range",
            Self::Reserve => "reserve changes nothing",
            Self::Prefetch => "prefetch changes nothing",
            Self::Extents => "what is reported as a hole reads as zeroes",
            Self::Threads => "requests for different ranges do not disturb each other",
            Self::Overlap => "where requests overlap, every block is that of one request",
            Self::Order => "a request sees the effect of those that have returned",
            Self::Flush => "what was flushed is there when the storage is opened again",
            Self::Resize => "resize keeps what stays and adds zeroes",
            Self::ReadOnly => "a read-only storage refuses every change",
        })
    }
}

/// A clause that does not hold for a backend.
#[derive(Debug)]
pub struct Violation {
    clause: Clause,
    found: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Violation {
    pub(super) fn new(clause: Clause, found: impl Into<String>) -> Self {
        Self {
            clause,
            found: found.into(),
            source: None,
        }
    }

    pub(super) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The clause.
    #[must_use]
    pub fn clause(&self) -> Clause {
        self.clause
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.clause, self.found)
    }
}

impl Error for Violation {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// Turns a panic into a violation.
pub(super) fn guard<T>(
    clause: Clause,
    examine: impl FnOnce() -> Result<T, Violation>,
) -> Result<T, Violation> {
    catch_unwind(AssertUnwindSafe(examine)).unwrap_or_else(|panic| {
        let message = text_of(&*panic);
        Err(Violation::new(clause, format!("it panicked: {message}")))
    })
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
