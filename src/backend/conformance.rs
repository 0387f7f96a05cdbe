//! A test suite for the contract of [`Backend`], for every storage that implements it.
//!
//! [`check`] opens the storage through a closure, overwrites it, and examines one [`Clause`] of the
//! contract after the other. The first clause that does not hold is returned as a [`Violation`]. A
//! backend calls it from a test:
//!
//! ```
//! use luksmith::backend::conformance::{self, Access};
//! use luksmith::backend::file::{FileBackend, OpenOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("storage");
//! std::fs::write(&path, vec![0; 2 << 20])?;
//! let report = conformance::check(|access| {
//!     let options = OpenOptions::new().write(access == Access::ReadWrite);
//!     Ok(Box::new(FileBackend::open(&path, options)?))
//! })?;
//! for (clause, reason) in report.skipped() {
//!     println!("not examined: {clause}: {reason}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The storage needs [`SMALLEST`] bytes and 64 blocks. The suite takes well below a second
//! on a storage that answers from memory.

mod extents;
mod serial;
mod subject;
mod threads;
mod violation;

use std::error::Error;

use super::Backend;
use subject::Subject;
use violation::guard;
pub use violation::{Clause, Violation};

/// The least size of the storage under test, in bytes.
pub const SMALLEST: u64 = 1 << 20;

/// How the closure of [`check`] opens the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading and writing.
    ReadWrite,
    /// For reading only. A backend that cannot do this opens for writing too, and the clause
    /// [`Clause::ReadOnly`] is skipped.
    ReadOnly,
}

/// What the closure of [`check`] returns.
pub type Opened<'a> = Result<Box<dyn Backend + 'a>, Box<dyn Error + Send + Sync>>;

/// What [`check`] found of a backend that keeps its contract.
#[derive(Clone, Debug, Default)]
pub struct Report {
    skipped: Vec<(Clause, &'static str)>,
}

impl Report {
    /// The clauses that were not examined, with the reason.
    #[must_use]
    pub fn skipped(&self) -> &[(Clause, &'static str)] {
        &self.skipped
    }
}

/// Examines a clause of an open storage. `Some` is the reason for which it was skipped.
type Examine = fn(&Subject<'_>) -> Result<Option<&'static str>, Violation>;

/// Whether a clause can be examined on read-only storage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Reading,
    Writing,
}

/// The clauses of a storage that stays open, in the order in which they are examined: each one
/// relies on those before it.
const CLAUSES: &[(Clause, Needs, Examine)] = &[
    (Clause::Geometry, Needs::Reading, serial::geometry),
    (Clause::Unwritten, Needs::Reading, serial::unwritten),
    (Clause::WholeBuffer, Needs::Reading, serial::whole_buffer),
    (Clause::Contents, Needs::Writing, serial::contents),
    (Clause::ZeroLength, Needs::Reading, serial::zero_length),
    (Clause::OutOfRange, Needs::Reading, serial::out_of_range),
    (Clause::NoWrapAround, Needs::Reading, serial::no_wrap_around),
    (Clause::WholeBlocks, Needs::Reading, serial::whole_blocks),
    (Clause::AfterRefusal, Needs::Reading, serial::after_refusal),
    (Clause::Prefetch, Needs::Reading, serial::prefetch),
    (Clause::WriteZeroes, Needs::Writing, serial::write_zeroes),
    (Clause::Discard, Needs::Writing, serial::discard),
    (Clause::Extents, Needs::Reading, extents::extents),
    (Clause::Reserve, Needs::Writing, serial::reserve),
    (Clause::Threads, Needs::Writing, threads::different_ranges),
    (Clause::Overlap, Needs::Writing, threads::overlapping_ranges),
    (Clause::Order, Needs::Writing, threads::order),
    (Clause::Resize, Needs::Writing, serial::resize),
];

/// Examines the storage that `open` opens. **All that it holds is overwritten.** Each call of
/// `open` opens the same storage; the backend of the call before is dropped by then.
///
/// A panic of the backend is a violation of the clause that was being examined.
///
/// # Errors
/// The first [`Violation`].
pub fn check<'a>(open: impl Fn(Access) -> Opened<'a>) -> Result<Report, Violation> {
    let mut report = Report::default();
    let reopened = |access| {
        let opened = guard(Clause::Open, || {
            open(access)
                .map_err(|error| Violation::new(Clause::Open, "opening it failed").because(error))
        })?;
        let geometry = opened.geometry();
        let needed = SMALLEST.max(64 * u64::from(geometry.block_size));
        if geometry.size < needed {
            let found = format!("it has {} bytes, the suite needs {needed}", geometry.size);
            return Err(Violation::new(Clause::Open, found));
        }
        Ok(opened)
    };

    let storage = reopened(Access::ReadWrite)?;
    let subject = Subject::new(&*storage);
    for (clause, needs, examine) in CLAUSES {
        let skipped = if *needs == Needs::Writing && subject.is_read_only() {
            Some("the storage is read-only")
        } else {
            guard(*clause, || examine(&subject))?
        };
        report
            .skipped
            .extend(skipped.map(|reason| (*clause, reason)));
    }
    let flushed = guard(Clause::Flush, || serial::flush(&subject))?;
    drop(storage);

    let storage = reopened(Access::ReadWrite)?;
    guard(Clause::Flush, || {
        serial::is_still_there(&Subject::new(&*storage), &flushed)
    })?;
    drop(storage);

    let storage = reopened(Access::ReadOnly)?;
    if storage.geometry().read_only {
        let subject = Subject::new(&*storage);
        guard(Clause::ReadOnly, || {
            serial::refuses_changes(&subject, &flushed)
        })?;
    } else {
        let reason = "the storage was not opened for reading only";
        report.skipped.push((Clause::ReadOnly, reason));
    }
    Ok(report)
}
