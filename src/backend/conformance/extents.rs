//! The clause of holes.

use super::subject::Subject;
use super::violation::{Clause, Violation};
use crate::backend::{Allocation, Extents, IoError};

/// The most bytes of one hole that are read.
const READ: u64 = 1 << 20;

/// Asks for all extents of the storage, and reads its holes.
pub(super) fn extents(subject: &Subject<'_>) -> Result<Option<&'static str>, Violation> {
    let clause = Clause::Extents;
    let size = subject.size;
    if !subject.is_read_only() {
        // A hole between data, where the storage can have one.
        let bytes = vec![0xa5; 256 << 10];
        subject.put(
            clause,
            0,
            &bytes[..bytes.len() / subject.unit * subject.unit],
        )?;
        let _ = subject.storage.discard(64 << 10..128 << 10);
    }
    let mut at = 0;
    while at < size {
        let told = ask(subject, at, size)?;
        if told.is_empty() {
            let found = format!("nothing is said about byte {at} and what follows");
            return Err(Violation::new(clause, found));
        }
        for (len, allocation) in told {
            if len == 0 || len > size - at {
                let found = format!("an extent of {len} bytes at byte {at} of {size}");
                return Err(Violation::new(clause, found));
            }
            if allocation == Allocation::Hole {
                reads_as_zeroes(subject, at, len)?;
            }
            at += len;
        }
    }
    // The range need not be in whole blocks.
    let told: u64 = ask(subject, 1, 7)?.iter().map(|(len, _)| len).sum();
    if !(1..=6).contains(&told) {
        let found = format!("extents of {told} bytes in a range of 6");
        return Err(Violation::new(clause, found));
    }
    for beyond in [size..size + 1, 0..size + 1, size..u64::MAX] {
        match subject.storage.extents(beyond.clone()) {
            Err(IoError::OutOfRange { .. }) => {}
            _ => {
                let (start, end) = (beyond.start, beyond.end);
                let found = format!("bytes {start} to {end} of {size} are not out of range");
                return Err(Violation::new(clause, found));
            }
        }
    }
    Ok(None)
}

fn ask(subject: &Subject<'_>, at: u64, end: u64) -> Result<Extents, Violation> {
    subject.storage.extents(at..end).map_err(|error| {
        let found = format!("asking for the extents from byte {at} on failed");
        Violation::new(Clause::Extents, found).because(error)
    })
}

fn reads_as_zeroes(subject: &Subject<'_>, at: u64, len: u64) -> Result<(), Violation> {
    let start = at.next_multiple_of(subject.block);
    let end = at + len.min(READ);
    let end = end - end % subject.block;
    let len = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
    subject.expect(Clause::Extents, start, &vec![0; len], "in a hole")
}
