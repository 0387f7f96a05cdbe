//! The clauses for calls that come one after the other.

use super::subject::{Request, Snapshot, Subject, pattern, sectors};
use super::violation::{Clause, Violation};
use crate::backend::{Geometry, IoError};

/// Units that a clause changes.
const UNITS: usize = 8;
/// Writes of [`contents`].
const WRITES: u64 = 200;

type Outcome = Result<Option<&'static str>, Violation>;

pub(super) fn geometry(subject: &Subject<'_>) -> Outcome {
    let geometry = subject.storage.geometry();
    if !geometry.block_size.is_power_of_two() {
        let found = format!("the block size is {}", geometry.block_size);
        return Err(Violation::new(Clause::Geometry, found));
    }
    let again = subject.storage.geometry();
    if geometry != again {
        let said = |one: Geometry| {
            let access = if one.read_only { ", read-only" } else { "" };
            format!("{} bytes in blocks of {}{access}", one.size, one.block_size)
        };
        let found = format!("first {}, then {}", said(geometry), said(again));
        return Err(Violation::new(Clause::Geometry, found));
    }
    Ok(None)
}

pub(super) fn unwritten(subject: &Subject<'_>) -> Outcome {
    let before = subject.snapshot(Clause::Unwritten)?;
    subject.expect_snapshot(Clause::Unwritten, &before, "when it is read again")?;
    Ok(None)
}

/// Writes at random places, compared with a model in memory, and at the end of the storage.
pub(super) fn contents(subject: &Subject<'_>) -> Outcome {
    let clause = Clause::Contents;
    let mut model = subject.snapshot(clause)?.start;
    let units = model.len() / subject.unit;
    for step in 0..WRITES {
        let random = pattern(step, 2);
        let first = usize::from(random[0]) % units;
        let count = 1 + usize::from(random[1]) % (units - first).min(6);
        let bytes = pattern(step + WRITES, count * subject.unit);
        subject.put(clause, subject.at(first), &bytes)?;
        let at = first * subject.unit;
        model[at..at + bytes.len()].copy_from_slice(&bytes);
        if step % 16 == 0 || step + 1 == WRITES {
            subject.expect(clause, 0, &model, "after writes here and beside it")?;
        }
    }
    let bytes = pattern(2 * WRITES, subject.unit);
    let last = subject.size - bytes.len() as u64;
    subject.put(clause, last, &bytes)?;
    subject.expect(clause, last, &bytes, "after the end was written")?;
    subject.expect(clause, 0, &model, "after the end was written")?;
    Ok(None)
}

/// Reads into buffers that hold different bytes: no byte may be left as it was.
pub(super) fn whole_buffer(subject: &Subject<'_>) -> Outcome {
    let clause = Clause::WholeBuffer;
    let len = UNITS * subject.unit;
    let [zeroes, ones] = [0x00, 0xff].map(|fill| {
        let mut into = sectors(&vec![fill; len]);
        let outcome = subject.storage.read_at(0, &mut into);
        (outcome, into)
    });
    for (outcome, into) in [&zeroes, &ones] {
        if outcome.is_err() {
            return Err(Violation::new(clause, "reading at byte 0 failed"));
        }
        if into.len() != len {
            let found = format!("the buffer had {len} bytes and has {} now", into.len());
            return Err(Violation::new(clause, found));
        }
    }
    let (zeroes, ones) = (zeroes.1.as_slice(), ones.1.as_slice());
    if let Some(at) = zeroes.iter().zip(ones).position(|(a, b)| a != b) {
        let found = format!("byte {at} of the buffer was not filled");
        return Err(Violation::new(clause, found));
    }
    let mut into = sectors(&vec![0; len]);
    let _ = subject.storage.read_at(subject.size, &mut into);
    if into.len() != len {
        let found = format!("a refused read made {} bytes of {len}", into.len());
        return Err(Violation::new(clause, found));
    }
    Ok(None)
}

pub(super) fn zero_length(subject: &Subject<'_>) -> Outcome {
    let clause = Clause::ZeroLength;
    let before = subject.snapshot(clause)?;
    for request in subject.requests() {
        for offset in [0, subject.block, subject.size] {
            match subject.run(request, offset, 0) {
                Ok(()) => {}
                Err(IoError::Unsupported(_)) if request == Request::Discard => {}
                Err(error) => {
                    let found = format!("{request} at byte {offset} failed");
                    return Err(Violation::new(clause, found).because(error));
                }
            }
        }
    }
    subject.expect_snapshot(clause, &before, "after requests of length zero")?;
    Ok(None)
}

pub(super) fn out_of_range(subject: &Subject<'_>) -> Outcome {
    let clause = Clause::OutOfRange;
    let (size, block) = (subject.size, subject.block);
    let before = subject.snapshot(clause)?;
    for request in subject.requests() {
        for (offset, len) in [
            (size, block),
            (size - block, 2 * block),
            (size + block, block),
        ] {
            expect_out_of_range(subject, clause, request, offset, len)?;
        }
        if !request.has_buffer() {
            expect_out_of_range(subject, clause, request, 0, size + block)?;
        }
    }
    subject.expect_snapshot(clause, &before, "after requests that had to be refused")?;
    Ok(None)
}

pub(super) fn no_wrap_around(subject: &Subject<'_>) -> Outcome {
    let clause = Clause::NoWrapAround;
    let before = subject.snapshot(clause)?;
    let last = u64::MAX - u64::MAX % subject.block;
    // The last block whose end is still a number, so that only the length leads beyond.
    let offset = last - subject.block;
    for request in subject.requests() {
        let len = if request.has_buffer() {
            4 * subject.block
        } else {
            last - offset
        };
        expect_out_of_range(subject, clause, request, offset, len)?;
    }
    subject.expect_snapshot(clause, &before, "after requests that had to be refused")?;
    Ok(None)
}

fn expect_out_of_range(
    subject: &Subject<'_>,
    clause: Clause,
    request: Request,
    offset: u64,
    len: u64,
) -> Result<(), Violation> {
    let what = format!("{request} of {len} bytes at byte {offset}");
    match subject.run(request, offset, len) {
        Err(IoError::OutOfRange { .. }) => Ok(()),
        Err(IoError::Unsupported(_)) if request == Request::Discard => Ok(()),
        Ok(()) => Err(Violation::new(clause, format!("{what} succeeded"))),
        Err(error) => {
            let found = format!("{what} failed with another error");
            Err(Violation::new(clause, found).because(error))
        }
    }
}

pub(super) fn whole_blocks(subject: &Subject<'_>) -> Outcome {
    let clause = Clause::WholeBlocks;
    let block = subject.block;
    if block == 1 {
        return Ok(Some("the block size is 1"));
    }
    let before = subject.snapshot(clause)?;
    for request in subject.requests() {
        for (offset, len) in [
            (block / 2, block),
            (0, block / 2),
            (block, block + block / 2),
        ] {
            let what = format!("{request} of {len} bytes at byte {offset}");
            match subject.run(request, offset, len) {
                Err(IoError::Unaligned { .. }) => {}
                Err(IoError::Unsupported(_)) if request == Request::Discard => {}
                Ok(()) => return Err(Violation::new(clause, format!("{what} succeeded"))),
                Err(error) => {
                    let found = format!("{what} failed with another error");
                    return Err(Violation::new(clause, found).because(error));
                }
            }
        }
    }
    subject.expect_snapshot(clause, &before, "after requests that had to be refused")?;
    Ok(None)
}

pub(super) fn after_refusal(subject: &Subject<'_>) -> Outcome {
    let clause = Clause::AfterRefusal;
    let before = subject.snapshot(clause)?;
    for request in subject.requests() {
        // The result does not matter here: another clause examines it.
        let _ = subject.run(request, subject.size, subject.block);
        subject.expect_snapshot(clause, &before, "after a refused request")?;
        if !subject.is_read_only() {
            let bytes = pattern(request as u64, subject.unit);
            subject.put(clause, 0, &bytes)?;
            subject.expect(clause, 0, &bytes, "after a refused request and a write")?;
            subject.put(clause, 0, &before.start[..subject.unit])?;
        }
    }
    Ok(None)
}

pub(super) fn write_zeroes(subject: &Subject<'_>) -> Outcome {
    let clause = Clause::WriteZeroes;
    let mut model = pattern(1, UNITS * subject.unit);
    subject.put(clause, 0, &model)?;
    let (from, to) = (2 * subject.unit, 5 * subject.unit);
    subject
        .run(Request::WriteZeroes, from as u64, (to - from) as u64)
        .map_err(|error| Violation::new(clause, "it failed").because(error))?;
    model[from..to].fill(0);
    subject.expect(clause, 0, &model, "after a part was zeroed")?;
    let bytes = pattern(2, subject.unit);
    subject.put(clause, subject.at(3), &bytes)?;
    let at = 3 * subject.unit;
    model[at..at + bytes.len()].copy_from_slice(&bytes);
    subject.expect(
        clause,
        0,
        &model,
        "after a part was zeroed and written again",
    )?;
    Ok(None)
}

pub(super) fn discard(subject: &Subject<'_>) -> Outcome {
    let clause = Clause::Discard;
    let mut model = pattern(3, UNITS * subject.unit);
    subject.put(clause, 0, &model)?;
    let (from, to) = (2 * subject.unit, 5 * subject.unit);
    match subject.run(Request::Discard, from as u64, (to - from) as u64) {
        Ok(()) => {}
        Err(IoError::Unsupported(_)) => {
            subject.expect(clause, 0, &model, "after a discard that is not supported")?;
            return Ok(Some("the storage has no discard"));
        }
        Err(error) => return Err(Violation::new(clause, "it failed").because(error)),
    }
    // The storage decides what a discarded range reads as.
    let discarded = subject.get(clause, from as u64, to - from)?;
    model[from..to].copy_from_slice(&discarded);
    subject.expect(
        clause,
        0,
        &model[..from],
        "before a range that was discarded",
    )?;
    subject.expect(
        clause,
        to as u64,
        &model[to..],
        "after a range that was discarded",
    )?;
    let bytes = pattern(4, to - from);
    subject.put(clause, from as u64, &bytes)?;
    model[from..to].copy_from_slice(&bytes);
    subject.expect(
        clause,
        0,
        &model,
        "after a part was discarded and written again",
    )?;
    Ok(None)
}

pub(super) fn prefetch(subject: &Subject<'_>) -> Outcome {
    let clause = Clause::Prefetch;
    let before = subject.snapshot(clause)?;
    subject
        .run(Request::Prefetch, 0, subject.size)
        .map_err(|error| Violation::new(clause, "it failed").because(error))?;
    subject.expect_snapshot(clause, &before, "after it was prefetched")?;
    Ok(None)
}

pub(super) fn reserve(subject: &Subject<'_>) -> Outcome {
    let clause = Clause::Reserve;
    let before = subject.snapshot(clause)?;
    let mut skipped = None;
    // The whole storage, and a part that begins and ends within a sector if the block size is 1.
    for range in [0..subject.size, subject.block..subject.block * 3] {
        match subject.storage.reserve(range) {
            Ok(()) => {}
            Err(IoError::Unsupported(_)) => skipped = Some("the storage reserves no space"),
            Err(error) => return Err(Violation::new(clause, "it failed").because(error)),
        }
    }
    subject.expect_snapshot(clause, &before, "after its space was reserved")?;
    Ok(skipped)
}

pub(super) fn resize(subject: &Subject<'_>) -> Outcome {
    let clause = Clause::Resize;
    let before = subject.snapshot(clause)?;
    let step = UNITS as u64 * subject.block.max(512);
    let resize = |size: u64| {
        let outcome = subject.storage.resize(size);
        let now = subject.storage.geometry().size;
        match outcome {
            Ok(()) if now == size => Ok(true),
            Ok(()) => {
                let found = format!("the size is {now} after a resize to {size}");
                Err(Violation::new(clause, found))
            }
            Err(IoError::Unsupported(_)) => Ok(false),
            Err(error) => {
                let found = format!("resizing to {size} bytes failed");
                Err(Violation::new(clause, found).because(error))
            }
        }
    };
    if !resize(subject.size + step)? {
        subject.expect_snapshot(clause, &before, "after a resize that is not supported")?;
        return Ok(Some("the size of the storage is fixed"));
    }
    let len = usize::try_from(step).unwrap_or(usize::MAX);
    let zeroes = vec![0; len];
    subject.expect(clause, subject.size, &zeroes, "in what a resize added")?;
    subject.put(clause, subject.size, &pattern(5, len))?;
    let kept = subject.size - step;
    let end = subject.get(clause, kept - step, len)?;
    subject.put(clause, kept, &pattern(6, len))?;
    resize(kept)?;
    if subject.read(kept, len).is_ok() {
        let found = "what was cut off can be read";
        return Err(Violation::new(clause, found));
    }
    resize(subject.size)?;
    subject.expect(clause, kept, &zeroes, "in what was cut off and added again")?;
    subject.expect(clause, kept - step, &end, "before what was cut off")?;
    subject.expect(clause, 0, &before.start, "after it was resized")?;
    Ok(None)
}

/// Writes and flushes, and returns what has to be there when the storage is opened again.
pub(super) fn flush(subject: &Subject<'_>) -> Result<Snapshot, Violation> {
    let clause = Clause::Flush;
    if !subject.is_read_only() {
        let bytes = pattern(7, UNITS * subject.unit);
        subject.put(clause, 0, &bytes)?;
        let end = subject.size - bytes.len() as u64;
        subject.put(clause, end, &bytes)?;
    }
    let written = subject.snapshot(clause)?;
    subject
        .storage
        .flush()
        .map_err(|error| Violation::new(clause, "it failed").because(error))?;
    Ok(written)
}

pub(super) fn is_still_there(subject: &Subject<'_>, flushed: &Snapshot) -> Result<(), Violation> {
    subject.expect_snapshot(Clause::Flush, flushed, "after it was opened again")
}

/// Every change of a storage that was opened for reading only.
pub(super) fn refuses_changes(subject: &Subject<'_>, flushed: &Snapshot) -> Result<(), Violation> {
    let clause = Clause::ReadOnly;
    let expect = |what: &str, outcome: Result<(), IoError>, or_unsupported: bool| match outcome {
        Err(IoError::ReadOnly(_)) => Ok(()),
        Err(IoError::Unsupported(_)) if or_unsupported => Ok(()),
        Ok(()) => Err(Violation::new(clause, format!("{what} succeeded"))),
        Err(error) => {
            let found = format!("{what} failed with another error");
            Err(Violation::new(clause, found).because(error))
        }
    };
    for request in Request::CHANGES {
        let outcome = subject.run(request, 0, subject.block);
        let may_be_unsupported = request == Request::Discard;
        expect(&request.to_string(), outcome, may_be_unsupported)?;
    }
    expect("a resize", subject.storage.resize(subject.size / 2), true)?;
    subject.expect_snapshot(clause, flushed, "after changes that had to be refused")?;
    subject
        .storage
        .flush()
        .map_err(|error| Violation::new(clause, "a flush failed").because(error))
}
