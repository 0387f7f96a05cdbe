//! Reads the areas of a storage in pieces, several at a time, and tests them.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::VetError;
use super::areas::{Area, Layout};
use super::randomness::{BLOCK, Counts, GRAIN, Look, SECTOR, zero_grains};
use super::read::read;
use super::regions::{Regions, Why};
use super::signature;
use crate::Interrupt;
use crate::backend::{Backend, IoError};

/// The bytes that are read at once.
const CHUNK: u64 = 1 << 20;

/// The chunks between two checks of the interrupt, and between two reports of progress.
const BATCH: usize = 32;

/// The bytes that a sample reads at each place.
pub const PIECE: u64 = 64 << 10;

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

/// Random places in the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The number of pieces of [`PIECE`] bytes that are read, all of them different.
    pub pieces: u32,
    /// The seed of the random places. The same seed gives the same places.
    pub seed: u64,
}

/// The result of a search.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// All areas, from the start of the storage to its end.
    pub areas: Vec<AreaReport>,
    /// The regions that do not look like ciphertext.
    pub suspicious: Regions,
    /// The regions that are zero.
    pub zero: Regions,
}

/// The result for an area.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AreaReport {
    /// The area.
    pub area: Area,
    /// The bytes of each kind.
    pub tally: Tally,
    /// For a sampled area: the number of pieces of [`PIECE`] bytes that were read, and of those in
    /// the area.
    pub sampled: Option<(u64, u64)>,
}

/// The number of bytes of each kind. The other bytes of the area were not read, or are an
/// incomplete sector at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Bytes that look like ciphertext.
    pub random: u64,
    /// Zero bytes.
    pub zero: u64,
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
            total.suspicious += tally.suspicious;
        }
        total
    }
}

/// Reads and tests all areas of `layout` on `storage` that have to look like ciphertext. Calls
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
    };
    for area in layout.areas(storage.geometry().size) {
        report.suspicious.part();
        report.zero.part();
        let mut plan = plan(area, options.sample);
        let mut tally = Tally::default();
        loop {
            let batch: Vec<_> = plan.pieces.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            for (range, runs) in batch.iter().zip(judge(storage, &batch, options.threads)?) {
                report.take(range.start, &runs, &mut tally);
            }
            progress(batch.iter().map(|range| range.end - range.start).sum());
            if interrupt.is_set() {
                return Err(VetError::Interrupted);
            }
        }
        report.areas.push(AreaReport {
            area: plan.area,
            tally,
            sampled: plan.sampled,
        });
    }
    Ok(report)
}

impl Layout {
    /// The number of bytes that [`verify`] reads of a storage of `size` bytes with these options.
    #[must_use]
    pub fn bytes_to_read(&self, size: u64, options: VerifyOptions) -> u64 {
        let areas = self.areas(size).into_iter();
        areas.map(|area| plan(area, options.sample).bytes).sum()
    }
}

impl Report {
    fn take(&mut self, mut offset: u64, runs: &[Run], tally: &mut Tally) {
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

/// What to read of an area.
struct Plan {
    area: Area,
    pieces: Box<dyn Iterator<Item = Range<u64>>>,
    bytes: u64,
    sampled: Option<(u64, u64)>,
}

fn plan(area: Area, sample: Option<Sample>) -> Plan {
    use super::areas::Purpose;

    let Range { start, end } = area.range;
    let mut sampled = None;
    let (pieces, bytes): (Box<dyn Iterator<Item = Range<u64>>>, u64) = match (area.purpose, sample)
    {
        (purpose, _) if !purpose.is_judged() => (Box::new(std::iter::empty()), 0),
        (Purpose::Data, Some(sample)) => {
            let all = (end - start).div_ceil(PIECE);
            let places = places(all, sample);
            sampled = Some((places.len() as u64, all));
            let bytes = places.len() as u64 * PIECE;
            let pieces = places.into_iter().map(move |place| {
                let from = start + place * PIECE;
                from..(from + PIECE).min(end)
            });
            (Box::new(pieces), bytes)
        }
        _ => {
            let step = usize::try_from(CHUNK).unwrap_or(usize::MAX);
            let pieces = (start..end)
                .step_by(step)
                .map(move |from| from..from.saturating_add(CHUNK).min(end));
            (Box::new(pieces), end - start)
        }
    };
    Plan {
        area,
        pieces,
        bytes,
        sampled,
    }
}

/// Different random numbers below `all`, in order.
fn places(all: u64, sample: Sample) -> Vec<u64> {
    let mut rng = StdRng::seed_from_u64(sample.seed);
    let all = usize::try_from(all).unwrap_or(usize::MAX);
    let wanted = usize::try_from(sample.pieces).unwrap_or(usize::MAX);
    let mut places: Vec<u64> = rand::seq::index::sample(&mut rng, all, wanted.min(all))
        .into_iter()
        .map(|place| place as u64)
        .collect();
    places.sort_unstable();
    places
}

/// Adjacent bytes of one kind: sectors, or grains of a sector that is partly zero.
struct Run {
    bytes: u64,
    /// `None` for bytes that look like ciphertext.
    why: Option<Why>,
}

/// Tests each range of a batch.
fn judge(
    storage: &dyn Backend,
    batch: &[Range<u64>],
    threads: usize,
) -> Result<Vec<Vec<Run>>, IoError> {
    let next = AtomicUsize::new(0);
    let judged = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let work = || -> Result<(), IoError> {
            while let Some(range) = batch.get(next.fetch_add(1, Ordering::Relaxed)) {
                let runs = read(storage, range.clone(), runs)?;
                let mut judged = judged
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                judged.push((range.start, runs));
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
