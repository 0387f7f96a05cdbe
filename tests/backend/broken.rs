//! For each clause of the contract there is storage that breaks it, and the suite names that
//! clause.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use luksmith::backend::conformance::{self, Access, Clause};
use luksmith::backend::memory::MemoryBackend;
use luksmith::backend::{Allocation, Backend, Extents, Geometry, IoError, Operation};
use luksmith::sectors::{Cipher, Sectors};

const SIZE: usize = 2 << 20;
const PAGE: u64 = 4096;

/// What is wrong with the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    BlockSizeOfThree,
    SizeThatGrows,
    ReadsNoise,
    ReadsAllButTheLastByte,
    ShortensTheBufferOfARefusedRead,
    RefusesZeroLength,
    ReadsZeroesBehindTheEnd,
    GrowsByAWrite,
    CutsZeroesAtTheEnd,
    PrefetchesAnything,
    WrapsAround,
    PanicsOnOverflow,
    TakesPartsOfBlocks,
    DropsTheWriteAfterARefusedOne,
    DropsWritesFarIn,
    ZeroesTheRestOfThePage,
    WritesNoZeroes,
    ZeroesOneByteMore,
    DiscardsWhatItDoesNotSupport,
    DiscardsWholePages,
    PrefetchFails,
    CallsDataAHole,
    SaysNothingOfARange,
    TellsBeyondARange,
    ReservesByZeroing,
    ReadsPagesBeforeItWrites,
    WritesHalvesOfBlocks,
    ShowsWritesToTheirThreadFirst,
    ForgetsWhenClosed,
    FlushFails,
    KeepsWhatWasCutOff,
    KeepsItsSize,
    WritesAlthoughReadOnly,
    RefusesChangesWithAnotherError,
}

impl Fault {
    fn block_size(self) -> u32 {
        match self {
            Self::BlockSizeOfThree => 3,
            Self::TakesPartsOfBlocks | Self::WritesHalvesOfBlocks => 512,
            _ => 1,
        }
    }
}

/// What each fault breaks.
const FAULTS: &[(Clause, &[Fault])] = &[
    (
        Clause::Geometry,
        &[Fault::BlockSizeOfThree, Fault::SizeThatGrows],
    ),
    (Clause::Unwritten, &[Fault::ReadsNoise]),
    (
        Clause::WholeBuffer,
        &[
            Fault::ReadsAllButTheLastByte,
            Fault::ShortensTheBufferOfARefusedRead,
        ],
    ),
    (Clause::ZeroLength, &[Fault::RefusesZeroLength]),
    (
        Clause::OutOfRange,
        &[
            Fault::ReadsZeroesBehindTheEnd,
            Fault::GrowsByAWrite,
            Fault::CutsZeroesAtTheEnd,
            Fault::PrefetchesAnything,
        ],
    ),
    (
        Clause::NoWrapAround,
        &[Fault::WrapsAround, Fault::PanicsOnOverflow],
    ),
    (Clause::WholeBlocks, &[Fault::TakesPartsOfBlocks]),
    (
        Clause::AfterRefusal,
        &[Fault::DropsTheWriteAfterARefusedOne],
    ),
    (Clause::Prefetch, &[Fault::PrefetchFails]),
    (
        Clause::Contents,
        &[Fault::DropsWritesFarIn, Fault::ZeroesTheRestOfThePage],
    ),
    (
        Clause::WriteZeroes,
        &[Fault::WritesNoZeroes, Fault::ZeroesOneByteMore],
    ),
    (
        Clause::Discard,
        &[
            Fault::DiscardsWhatItDoesNotSupport,
            Fault::DiscardsWholePages,
        ],
    ),
    (
        Clause::Extents,
        &[
            Fault::CallsDataAHole,
            Fault::SaysNothingOfARange,
            Fault::TellsBeyondARange,
        ],
    ),
    (Clause::Reserve, &[Fault::ReservesByZeroing]),
    (Clause::Threads, &[Fault::ReadsPagesBeforeItWrites]),
    (Clause::Overlap, &[Fault::WritesHalvesOfBlocks]),
    (Clause::Order, &[Fault::ShowsWritesToTheirThreadFirst]),
    (
        Clause::Resize,
        &[Fault::KeepsWhatWasCutOff, Fault::KeepsItsSize],
    ),
    (
        Clause::Flush,
        &[Fault::ForgetsWhenClosed, Fault::FlushFails],
    ),
    (
        Clause::ReadOnly,
        &[
            Fault::WritesAlthoughReadOnly,
            Fault::RefusesChangesWithAnotherError,
        ],
    ),
];

/// Memory with a fault. It is kept when the storage is closed.
struct Broken {
    memory: Arc<MemoryBackend>,
    fault: Fault,
    read_only: bool,
    /// The size, where it is not that of the memory.
    size: AtomicU64,
    noise: AtomicU8,
    refused: AtomicBool,
    pending: Mutex<VecDeque<(ThreadId, u64, Sectors<Cipher>)>>,
}

/// Gives the other threads time for their requests. `yield_now` does not: on a busy machine it can
/// return at once each time.
fn let_others_run() {
    thread::sleep(Duration::from_micros(50));
}

fn copy(bytes: &[u8]) -> Sectors<Cipher> {
    let mut sectors = Sectors::<Cipher>::with_len(bytes.len());
    sectors.as_mut_slice().copy_from_slice(bytes);
    sectors
}

impl Broken {
    fn new(memory: Arc<MemoryBackend>, fault: Fault, access: Access) -> Self {
        Self {
            size: AtomicU64::new(memory.geometry().size),
            memory,
            fault,
            read_only: access == Access::ReadOnly,
            noise: AtomicU8::new(0),
            refused: AtomicBool::new(false),
            pending: Mutex::default(),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn check(&self, operation: Operation, offset: u64, len: u64) -> Result<(), IoError> {
        let mut geometry = self.geometry();
        if self.has(Fault::TakesPartsOfBlocks) {
            geometry = geometry.with_block_size(1);
        }
        if self.has(Fault::WrapsAround) && offset.wrapping_add(len) <= geometry.size {
            return Ok(());
        }
        if self.has(Fault::PanicsOnOverflow) {
            assert!(
                offset.checked_add(len).is_some(),
                "attempt to add with overflow"
            );
        }
        if self.has(Fault::RefusesZeroLength) && len == 0 {
            return Err(IoError::Unsupported(operation));
        }
        if operation == Operation::Read {
            return geometry.check(operation, offset, len);
        }
        if self.read_only && self.has(Fault::WritesAlthoughReadOnly) {
            return Ok(());
        }
        if self.read_only && self.has(Fault::RefusesChangesWithAnotherError) {
            return Err(IoError::NoSpace { operation, offset });
        }
        let checked = geometry.check_change(operation, offset, len);
        if checked.is_err() {
            self.refused.store(true, Ordering::Relaxed);
        }
        checked
    }

    /// Applies the writes that wait, if one of them is this thread's or they are many.
    fn apply(&self, always: bool) -> Result<(), IoError> {
        let mut pending = self.pending.lock().unwrap();
        let own = pending
            .iter()
            .any(|(thread, ..)| *thread == thread::current().id());
        if always || own || pending.len() > 8 {
            for (_, offset, bytes) in pending.drain(..) {
                self.memory.write_at(offset, &bytes)?;
            }
        }
        Ok(())
    }

    fn zero(&self, range: Range<u64>) -> Result<(), IoError> {
        let end = range.end.min(self.memory.geometry().size);
        self.memory.write_zeroes(range.start..end)
    }
}

fn len_of(range: &Range<u64>) -> u64 {
    range.end - range.start
}

impl Backend for Broken {
    fn geometry(&self) -> Geometry {
        let size = match self.fault {
            Fault::SizeThatGrows => self.size.fetch_add(1, Ordering::Relaxed),
            Fault::KeepsWhatWasCutOff | Fault::KeepsItsSize => self.size.load(Ordering::Relaxed),
            _ => self.memory.geometry().size,
        };
        Geometry::new(size)
            .with_block_size(self.fault.block_size())
            .with_read_only(self.read_only)
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        let len = into.len();
        if let Err(error) = self.check(Operation::Read, offset, len as u64) {
            match self.fault {
                Fault::ShortensTheBufferOfARefusedRead => *into = Sectors::empty(),
                Fault::ReadsZeroesBehindTheEnd => {
                    into.as_mut_slice().fill(0);
                    return Ok(());
                }
                _ => {}
            }
            return Err(error);
        }
        if self.has(Fault::WrapsAround) && offset > self.geometry().size {
            return Ok(());
        }
        self.apply(false)?;
        let kept = into.as_slice().last().copied();
        self.memory.read_at(offset, into)?;
        match (self.fault, into.as_mut_slice().last_mut()) {
            (Fault::ReadsNoise, Some(last)) => *last ^= self.noise.fetch_add(1, Ordering::Relaxed),
            (Fault::ReadsAllButTheLastByte, Some(last)) => *last = kept.unwrap_or(0),
            _ => {}
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        let bytes = from.as_slice();
        if let Err(error) = self.check(Operation::Write, offset, bytes.len() as u64) {
            if self.has(Fault::GrowsByAWrite) {
                let end = offset.saturating_add(bytes.len() as u64);
                self.memory.resize(end.min(2 * SIZE as u64))?;
            }
            return Err(error);
        }
        match self.fault {
            Fault::WrapsAround if offset > self.geometry().size => Ok(()),
            Fault::DropsTheWriteAfterARefusedOne if self.refused.swap(false, Ordering::Relaxed) => {
                Ok(())
            }
            Fault::DropsWritesFarIn if offset > 2 * PAGE => Ok(()),
            Fault::ZeroesTheRestOfThePage if !bytes.is_empty() => {
                self.memory.write_at(offset, from)?;
                let end = offset + bytes.len() as u64;
                self.zero(end..end.next_multiple_of(PAGE))
            }
            Fault::ReadsPagesBeforeItWrites => {
                let start = offset - offset % PAGE;
                let end = (offset + bytes.len() as u64).next_multiple_of(PAGE);
                let len = usize::try_from(end.min(SIZE as u64) - start).unwrap();
                let mut pages = Sectors::<Cipher>::with_len(len);
                self.memory.read_at(start, &mut pages)?;
                let_others_run();
                let at = usize::try_from(offset - start).unwrap();
                pages.as_mut_slice()[at..at + bytes.len()].copy_from_slice(bytes);
                self.memory.write_at(start, &pages)
            }
            Fault::WritesHalvesOfBlocks => {
                for (number, half) in (0..).zip(bytes.chunks(256)) {
                    self.memory.write_at(offset + number * 256, &copy(half))?;
                    let_others_run();
                }
                Ok(())
            }
            Fault::ShowsWritesToTheirThreadFirst => {
                let write = (thread::current().id(), offset, copy(bytes));
                self.pending.lock().unwrap().push_back(write);
                Ok(())
            }
            _ => self.memory.write_at(offset, from),
        }
    }

    fn flush(&self) -> Result<(), IoError> {
        // Those of the clauses before succeed.
        if self.has(Fault::FlushFails) && self.noise.fetch_add(1, Ordering::Relaxed) >= 12 {
            let error = std::io::Error::other("broken");
            return Err(IoError::from_os(Operation::Flush, 0, error));
        }
        self.apply(true)
    }

    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.apply(true)?;
        self.check(Operation::Discard, range.start, len_of(&range))?;
        match self.fault {
            Fault::WrapsAround if range.start > SIZE as u64 => Ok(()),
            Fault::DiscardsWhatItDoesNotSupport => {
                self.zero(range)?;
                Err(IoError::Unsupported(Operation::Discard))
            }
            Fault::DiscardsWholePages if !range.is_empty() => {
                self.zero(range.start - range.start % PAGE..range.end.next_multiple_of(PAGE))
            }
            _ => self.zero(range),
        }
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.apply(true)?;
        if self.has(Fault::CutsZeroesAtTheEnd) && range.end > SIZE as u64 {
            return self.zero(range.start.min(SIZE as u64)..SIZE as u64);
        }
        self.check(Operation::WriteZeroes, range.start, len_of(&range))?;
        match self.fault {
            Fault::WrapsAround if range.start > SIZE as u64 => Ok(()),
            Fault::WritesNoZeroes => Ok(()),
            Fault::ZeroesOneByteMore if !range.is_empty() => self.zero(range.start..range.end + 1),
            _ => self.zero(range),
        }
    }

    fn resize(&self, size: u64) -> Result<(), IoError> {
        if self.read_only {
            return Err(IoError::ReadOnly(Operation::Resize));
        }
        match self.fault {
            Fault::KeepsItsSize => Ok(()),
            Fault::KeepsWhatWasCutOff => {
                self.size.store(size, Ordering::Relaxed);
                let most = self.memory.geometry().size.max(size);
                self.memory.resize(most)
            }
            _ => self.memory.resize(size),
        }
    }

    fn reserve(&self, range: Range<u64>) -> Result<(), IoError> {
        match self.fault {
            Fault::ReservesByZeroing => self.zero(range),
            _ => self.memory.reserve(range),
        }
    }

    fn extents(&self, range: Range<u64>) -> Result<Extents, IoError> {
        let extents = self.memory.extents(range.clone())?;
        Ok(match self.fault {
            Fault::CallsDataAHole => vec![(len_of(&range), Allocation::Hole)],
            Fault::SaysNothingOfARange => Extents::new(),
            Fault::TellsBeyondARange => vec![(len_of(&range) + 1, Allocation::Data)],
            _ => extents,
        })
    }

    fn prefetch(&self, range: Range<u64>) -> Result<(), IoError> {
        match self.fault {
            Fault::PrefetchesAnything => Ok(()),
            Fault::PrefetchFails if len_of(&range) > PAGE && range.end <= SIZE as u64 => {
                Err(IoError::NoSpace {
                    operation: Operation::Read,
                    offset: range.start,
                })
            }
            _ => self.check(Operation::Read, range.start, len_of(&range)),
        }
    }
}

fn check(fault: Fault) -> Result<conformance::Report, conformance::Violation> {
    let memory = || Arc::new(MemoryBackend::from_bytes(vec![0x5c; SIZE]));
    let kept = memory();
    conformance::check(|access| {
        let memory = if fault == Fault::ForgetsWhenClosed {
            memory()
        } else {
            kept.clone()
        };
        Ok(Box::new(Broken::new(memory, fault, access)))
    })
}

#[test]
fn storage_without_a_fault_passes() {
    let report = check(Fault::None).unwrap_or_else(|violation| panic!("{violation:?}"));
    let skipped: Vec<_> = report.skipped().iter().map(|(clause, _)| *clause).collect();
    assert_eq!(skipped, [Clause::WholeBlocks]);
}

#[test]
fn each_fault_is_found_as_the_clause_that_it_breaks() {
    let mut complaints = Vec::new();
    for (clause, faults) in FAULTS {
        for fault in *faults {
            match check(*fault) {
                Ok(_) => complaints.push(format!("{fault:?} was not found")),
                Err(violation) if violation.clause() == *clause => {}
                Err(violation) => complaints.push(format!("{fault:?}: {violation}")),
            }
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn storage_that_cannot_be_opened_or_is_too_small_is_told() {
    let refused = conformance::check(|_| Err("no such storage".into())).unwrap_err();
    assert_eq!(refused.clause(), Clause::Open);
    let source = std::error::Error::source(&refused).unwrap();
    assert_eq!(source.to_string(), "no such storage");

    let storage = MemoryBackend::new((1 << 20) - 1);
    let small = conformance::check(|_| Ok(Box::new(&storage))).unwrap_err();
    assert_eq!(small.clause(), Clause::Open);

    let storage = MemoryBackend::new(2 << 20).with_block_size(64 << 10);
    let small = conformance::check(|_| Ok(Box::new(&storage))).unwrap_err();
    assert!(small.to_string().contains("4194304"), "{small}");
}

/// A violation says what was done and what was found.
#[test]
fn a_violation_is_told_in_one_line() {
    let violation = check(Fault::CutsZeroesAtTheEnd).unwrap_err();
    let text = violation.to_string();
    assert!(
        text.starts_with("a range that is not all inside is refused: "),
        "{text}"
    );
    let found = "a write of zeroes of 1 bytes at byte 2097152 succeeded";
    assert!(text.ends_with(found), "{text}");
}
