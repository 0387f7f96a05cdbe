//! Reads the areas of a storage in pieces, several at a time, and tests them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::VetError;
use super::areas::{Area, Layout, Purpose};
use super::pieces::{Piece, Sample, plan};
use super::randomness::{BLOCK, Counts, GRAIN, Look, SECTOR, zero_grains};
use super::read::read;
use super::regions::{Regions, Why};
use super::signature;
use crate::Interrupt;
use crate::backend::{Backend, IoError};

/// The chunks between two checks of the interrupt, and between two reports of progress.
const BATCH: usize = 32;

/// How to read a storage.
#[derive(Clone, Copy, Debug)]
pub struct VerifyOptions {
    sample: Option<Sample>,
    threads: usize,
}

impl VerifyOptions {
    /// Options to read all of the storage, one read after the other.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sample: None,
            threads: 1,
        }
    }

    setters! {
        /// Reads the data only at random places.
        sample: Option<Sample>,

        /// The number of reads in flight at once. Default: 1.
        threads: usize,
    }
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// The result of a search.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// All areas, from the start of the storage to its end.
    pub areas: Vec<AreaReport>,
    /// The regions that do not look like ciphertext.
    pub suspicious: Regions,
    /// The regions that were read and are zero.
    pub zero: Regions,
    /// The regions for which the storage has no data. They were not read.
    pub holes: Regions,
}

/// The result for an area.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AreaReport {
    /// The area.
    pub area: Area,
    /// The bytes of each kind.
    pub tally: Tally,
    /// For a sampled area: the number of pieces of 64 KiB that were read, and of those in the area.
    pub sampled: Option<(u64, u64)>,
}

/// The number of bytes of each kind. The other bytes of the area were not read, or are an
/// incomplete sector at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Bytes that look like ciphertext.
    pub random: u64,
    /// Bytes that were read and are zero.
    pub zero: u64,
    /// Bytes for which the storage has no data.
    pub hole: u64,
    /// Bytes that are neither.
    pub suspicious: u64,
}

impl Report {
    /// The sum over all areas.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for AreaReport { tally, .. } in &self.areas {
            total.random += tally.random;
            total.zero += tally.zero;
            total.hole += tally.hole;
            total.suspicious += tally.suspicious;
        }
        total
    }
}

/// Reads and tests all areas of `layout` on `storage` that have to look like ciphertext, except
/// where the storage has no data. A sample reads its places in any case. Calls
/// `progress` with the number of further bytes that were read.
///
/// # Errors
/// Returns the error of the storage, or [`VetError::Interrupted`].
pub fn verify(
    storage: &dyn Backend,
    layout: &Layout,
    options: VerifyOptions,
    interrupt: &Interrupt,
    progress: &dyn Fn(u64),
) -> Result<Report, VetError> {
    let mut report = Report {
        areas: Vec::new(),
        suspicious: Regions::default(),
        zero: Regions::default(),
        holes: Regions::default(),
    };
    for area in layout.areas(storage.geometry().size) {
        report.begin_area();
        let mut tally = Tally::default();
        if area.purpose == Purpose::Compressed {
            report.not_encrypted(&area, &mut tally);
        }
        let plan = plan(&area, options.sample);
        let mut pieces = plan.pieces(storage);
        loop {
            let batch = pieces.batch(BATCH)?;
            if batch.is_empty() {
                break;
            }
            let judged = judge(storage, &batch, options.threads)?;
            for (piece, runs) in batch.iter().zip(judged) {
                report.take(piece, &runs, &mut tally);
            }
            progress(batch.iter().map(Piece::len).sum());
            if interrupt.is_set() {
                return Err(VetError::Interrupted);
            }
        }
        report.areas.push(AreaReport {
            sampled: plan.sampled,
            area,
            tally,
        });
    }
    Ok(report)
}

impl Layout {
    /// The number of bytes that [`verify`] reads of a storage of `size` bytes with these options.
    #[must_use]
    pub fn bytes_to_read(&self, size: u64, options: VerifyOptions) -> u64 {
        let areas = self.areas(size).into_iter();
        areas.map(|area| plan(&area, options.sample).bytes()).sum()
    }
}

impl Report {
    /// Begins another area, whose regions do not join those before.
    fn begin_area(&mut self) {
        self.suspicious.part();
        self.zero.part();
        self.holes.part();
    }

    /// Adds an area that is not encrypted, without reading it.
    fn not_encrypted(&mut self, area: &Area, tally: &mut Tally) {
        for part in area.parts() {
            let len = part.end - part.start;
            tally.suspicious += len;
            self.suspicious.add(part.start, len, Why::Compressed);
        }
    }

    fn take(&mut self, piece: &Piece, runs: &[Run], tally: &mut Tally) {
        let mut offset = piece.range.start;
        if piece.is_hole {
            tally.hole += piece.len();
            self.holes.add(offset, piece.len(), Why::Hole);
        }
        for run in runs {
            match run.why {
                None => tally.random += run.bytes,
                Some(Why::Zero) => {
                    tally.zero += run.bytes;
                    self.zero.add(offset, run.bytes, Why::Zero);
                }
                Some(why) => {
                    tally.suspicious += run.bytes;
                    self.suspicious.add(offset, run.bytes, why);
                }
            }
            offset += run.bytes;
        }
    }
}

/// Adjacent bytes of one kind: sectors, or grains of a sector that is partly zero.
struct Run {
    bytes: u64,
    /// `None` for bytes that look like ciphertext.
    why: Option<Why>,
}

/// Tests each piece of a batch that is not a hole.
fn judge(storage: &dyn Backend, batch: &[Piece], threads: usize) -> Result<Vec<Vec<Run>>, IoError> {
    let next = AtomicUsize::new(0);
    let judged = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let work = || -> Result<(), IoError> {
            while let Some(piece) = batch.get(next.fetch_add(1, Ordering::Relaxed)) {
                let runs = match piece.is_hole {
                    true => Vec::new(),
                    false => read(storage, piece.range.clone(), runs)?,
                };
                let mut judged = judged
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                judged.push((piece.range.start, runs));
            }
            Ok(())
        };
        let others: Vec<_> = (1..threads.min(batch.len()))
            .map(|_| scope.spawn(work))
            .collect();
        let mut outcome = work();
        for other in others {
            let theirs = other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome = outcome.and(theirs);
        }
        outcome
    })?;
    let mut judged = judged
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    judged.sort_unstable_by_key(|(start, _)| *start);
    Ok(judged.into_iter().map(|(_, runs)| runs).collect())
}

/// Tests whole sectors. An incomplete one at the end is too short for the test.
fn runs(bytes: &[u8]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut push = |bytes: usize, why| {
        let bytes = bytes as u64;
        match runs.last_mut() {
            Some(last) if last.why == why => last.bytes += bytes,
            _ => runs.push(Run { bytes, why }),
        }
    };
    let mut counts = Counts::new();
    let (sectors, _) = bytes.as_chunks::<SECTOR>();
    for block in sectors.chunks(BLOCK / SECTOR) {
        let mut looks = [(None, 0); BLOCK / SECTOR];
        for (look, sector) in looks.iter_mut().zip(block) {
            let zero = zero_grains(sector);
            *look = (why_of(counts.sector(sector, zero), sector), zero);
        }
        let whole = counts.block();
        // A bias may show in the block and in none of its sectors.
        if block.len() == looks.len() && looks.iter().all(|(why, _)| why.is_none()) {
            let why = whole.and_then(plain_why);
            looks.iter_mut().for_each(|look| look.0 = why);
        }
        for (why, zero) in looks.into_iter().take(block.len()) {
            if why.is_some() || zero == 0 {
                push(SECTOR, why);
                continue;
            }
            for grain in 0..SECTOR / GRAIN {
                push(GRAIN, (zero & (1 << grain) != 0).then_some(Why::Zero));
            }
        }
    }
    runs
}

fn why_of(look: Look, sector: &[u8; SECTOR]) -> Option<Why> {
    match look {
        Look::Zero => Some(Why::Zero),
        Look::Random => signature::alone(sector).map(Why::Signature),
        look => signature::any(sector)
            .map(Why::Signature)
            .or_else(|| plain_why(look)),
    }
}

fn plain_why(look: Look) -> Option<Why> {
    match look {
        Look::Random => None,
        Look::Zero => Some(Why::Zero),
        Look::LowEntropy => Some(Why::LowEntropy),
        Look::TooEven => Some(Why::TooEven),
    }
}
