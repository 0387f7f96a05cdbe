//! Reads the areas of a storage in pieces, several at a time, and judges what they look like.

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

/// What is read at once, in bytes.
const CHUNK: u64 = 1 << 20;

/// Chunks between two looks at the interruption, and between two reports of progress.
const BATCH: usize = 32;

/// What a sample reads at each place, in bytes.
pub const PIECE: u64 = 64 << 10;

/// How a storage is read.
#[derive(Clone, Copy, Debug)]
pub struct VerifyOptions {
    sample: Option<Sample>,
    threads: usize,
}

impl VerifyOptions {
    /// All of it, one read after the other.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sample: None,
            threads: 1,
        }
    }

    setters! {
        /// Reads the data at random places only.
        sample: Option<Sample>,

        /// How many reads are in flight at once. Default: 1.
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
    /// How many pieces of [`PIECE`] bytes are read, all of them different.
    pub pieces: u32,
    /// From what the places are drawn: the same seed, the same places.
    pub seed: u64,
}

/// What was seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Each area from the start of the storage to its end.
    pub areas: Vec<AreaReport>,
    /// What does not look like ciphertext.
    pub suspicious: Regions,
    /// What is zero.
    pub zero: Regions,
}

/// What was seen in an area.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AreaReport {
    /// The area.
    pub area: Area,
    /// What it looks like.
    pub tally: Tally,
    /// The pieces of [`PIECE`] bytes that were read of it and those that it has, where it was sampled.
    pub sampled: Option<(u64, u64)>,
}

/// Bytes by what they look like. What an area has more was not read, or is less than a sector at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// As ciphertext does.
    pub random: u64,
    /// Zero.
    pub zero: u64,
    /// As neither.
    pub suspicious: u64,
}

impl Report {
    /// The sums over all areas.
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

/// Reads all areas of `layout` on `storage` that are to be judged, and judges them. `progress` is told how many bytes more were
/// read.
///
/// # Errors
/// [`VetError`]: what the storage says, or the interruption.
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
    /// How many bytes [`verify`] reads of a storage of `size` bytes with these options.
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

/// What is to be read of an area.
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

/// Different numbers below `all` in their order.
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

/// Bytes in a row that look alike: sectors, or in one that is zero in part the grains of either kind.
struct Run {
    bytes: u64,
    /// None: as ciphertext does.
    why: Option<Why>,
}

/// What each range of a batch looks like.
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

/// The looks of whole sectors; a shorter rest says too little to be judged.
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
        // A bias that shows in no single sector.
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
