//! The clauses for calls from several threads.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use super::subject::{Subject, pattern};
use super::violation::{Clause, Violation, guard};

/// Threads that call at the same time.
const THREADS: usize = 4;
/// How often each thread changes what it has.
const ROUNDS: usize = 24;
/// Units that each thread has in [`different_ranges`], and that the threads share in
/// [`overlapping_ranges`].
const UNITS: usize = 8;
/// What the range holds before [`overlapping_ranges`]; the threads write their numbers from 0 on.
const BEFORE: u8 = 0xee;

/// The threads have units in turn, so that each one's neighbours belong to other threads.
pub(super) fn different_ranges(subject: &Subject<'_>) -> Result<Option<&'static str>, Violation> {
    let clause = Clause::Threads;
    let start = Barrier::new(THREADS);
    let content = |thread: usize, round: usize, number: usize| {
        pattern((thread << 20 | round << 10 | number) as u64, subject.unit)
    };
    let change = |thread: usize| -> Result<(), Violation> {
        start.wait();
        for round in 0..ROUNDS {
            for number in 0..UNITS {
                let at = subject.at(number * THREADS + thread);
                subject.put(clause, at, &content(thread, round, number))?;
            }
            if round % 8 == thread {
                subject.storage.flush().map_err(|error| {
                    Violation::new(clause, "a flush beside other requests failed").because(error)
                })?;
            }
            for number in 0..UNITS {
                let at = subject.at(number * THREADS + thread);
                let expected = content(thread, round, number);
                subject.expect(clause, at, &expected, "beside writes of other threads")?;
            }
        }
        Ok(())
    };
    all(clause, (0..THREADS).map(|thread| move || change(thread)))?;
    for (thread, number) in (0..THREADS).flat_map(|t| (0..UNITS).map(move |n| (t, n))) {
        let at = subject.at(number * THREADS + thread);
        let expected = content(thread, ROUNDS - 1, number);
        subject.expect(clause, at, &expected, "after writes of several threads")?;
    }
    Ok(None)
}

/// All threads but one write the same range; the last one reads it meanwhile.
pub(super) fn overlapping_ranges(subject: &Subject<'_>) -> Result<Option<&'static str>, Violation> {
    let clause = Clause::Overlap;
    let len = UNITS * subject.unit;
    let before = vec![BEFORE; len];
    subject.put(clause, 0, &before)?;
    subject.expect(clause, 0, &before, "after it was written")?;
    let start = Barrier::new(THREADS);
    let done = AtomicBool::new(false);
    let check = |bytes: &[u8], when: &str| {
        let block = usize::try_from(subject.block).unwrap_or(usize::MAX);
        for (number, block) in bytes.chunks(block).enumerate() {
            let first = block[0];
            let known = first == BEFORE || usize::from(first) < THREADS - 1;
            if !known || block.iter().any(|&byte| byte != first) {
                let found = format!("block {number} is a mix of two requests {when}");
                return Err(Violation::new(clause, found));
            }
        }
        Ok(())
    };
    let act = |thread: usize| -> Result<(), Violation> {
        start.wait();
        if thread == THREADS - 1 {
            while !done.load(Ordering::Acquire) {
                check(&subject.get(clause, 0, len)?, "in a read beside writes")?;
            }
            return Ok(());
        }
        let bytes = vec![u8::try_from(thread).unwrap_or(0); len];
        let written = guard(clause, || {
            (0..ROUNDS * 4).try_for_each(|_| subject.put(clause, 0, &bytes))
        });
        // Also after a panic, or the reading thread would not end.
        done.store(true, Ordering::Release);
        written
    };
    all(clause, (0..THREADS).map(|thread| move || act(thread)))?;
    let bytes = subject.get(clause, 0, len)?;
    check(&bytes, "after writes of several threads")?;
    if bytes.contains(&BEFORE) {
        let found = "a byte of the range was not written at all";
        return Err(Violation::new(clause, found));
    }
    Ok(None)
}

/// One thread writes and another one reads, in turns.
pub(super) fn order(subject: &Subject<'_>) -> Result<Option<&'static str>, Violation> {
    let clause = Clause::Order;
    let (written, wait_written) = mpsc::sync_channel::<Vec<u8>>(0);
    let (read, wait_read) = mpsc::sync_channel::<()>(0);
    let write = move || {
        for round in 0..ROUNDS as u64 {
            let bytes = pattern(round, subject.unit);
            subject.put(clause, subject.at(1), &bytes)?;
            // The other thread ends where it finds a violation.
            if written.send(bytes).is_err() || wait_read.recv().is_err() {
                break;
            }
        }
        Ok(())
    };
    let check = move || {
        for bytes in wait_written {
            let after = "after another thread wrote it";
            subject.expect(clause, subject.at(1), &bytes, after)?;
            if read.send(()).is_err() {
                break;
            }
        }
        Ok(())
    };
    let both: [Box<dyn FnOnce() -> Result<(), Violation> + Send>; 2] =
        [Box::new(write), Box::new(check)];
    all(clause, both)?;
    Ok(None)
}

/// Runs each of these in a thread, and returns the first violation.
fn all<F: FnOnce() -> Result<(), Violation> + Send>(
    clause: Clause,
    each: impl IntoIterator<Item = F>,
) -> Result<(), Violation> {
    thread::scope(|scope| {
        let threads: Vec<_> = each
            .into_iter()
            .map(|act| scope.spawn(move || guard(clause, act)))
            .collect();
        let mut outcome = Ok(());
        for thread in threads {
            let ended = thread
                .join()
                .unwrap_or_else(|_| Err(Violation::new(clause, "a thread panicked")));
            outcome = outcome.and(ended);
        }
        outcome
    })
}
