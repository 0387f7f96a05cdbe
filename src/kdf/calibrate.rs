//! Calibration of the cost of a new keyslot: finds the parameters that take a given time here.
//!
//! As in cryptsetup, memory is raised first, then the number of passes.
//!
//! What counts is the running time of the threads, not the time on the clock, and a short
//! measurement is repeated and the fastest run taken. So other programs that keep the processors
//! busy do not make the keyslot weaker, apart from the caches and the memory that they share.

use std::fmt;
use std::time::{Duration, Instant};

use luksmith_formats::Hash;
use luksmith_formats::luks2::{Argon2Variant, Kdf};

use super::argon2;
use super::{Argon2Cost, KdfError, pbkdf2};
use crate::Interrupt;
use crate::sys::process::thread_time;

/// The default time for unlocking a keyslot.
pub const DEFAULT_TIME: Duration = Duration::from_millis(2000);
/// The default limit for the memory of argon2: 1 GiB.
pub const DEFAULT_MAX_MEMORY_KIB: u32 = 1 << 20;
/// The default limit for the lanes of argon2.
pub const DEFAULT_MAX_LANES: u32 = 4;

/// The time for computing the digest of a volume key.
const DIGEST_TIME: Duration = Duration::from_millis(125);
/// The minimum of PBKDF2 iterations, even if they take longer than the requested time.
const MIN_ITERATIONS: u32 = 1000;
/// The minimum of argon2 passes, even if they take longer than the requested time.
const MIN_PASSES: u32 = 4;
/// Memory of the first argon2 measurement: 64 MiB.
const START_MEMORY_KIB: u32 = 64 << 10;
/// The minimum of argon2 memory, for machines on which even the first measurement takes too long.
const MIN_MEMORY_KIB: u32 = 32;
/// The maximum number of argon2 measurements. After these, the best one is used: on a busy machine
/// none may be close enough to the requested time.
const MAX_MEASUREMENTS: u32 = 8;
/// The minimum time of a PBKDF2 measurement. A shorter one is too inaccurate.
const MIN_MEASURED: Duration = Duration::from_millis(60);
/// How often a measurement is made, of which the fastest counts.
const RUNS: u32 = 4;
/// An argon2 measurement that takes longer than this is not repeated.
const LONG: Duration = Duration::from_millis(300);
/// The machine is busy if the threads got less than this part of the time on the clock.
const IDLE: f64 = 0.5;

const PASSPHRASE: &[u8] = b"benchmark";
const SALT: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

/// The function to calibrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KdfKind {
    /// PBKDF2 with this hash.
    Pbkdf2(Hash),
    /// argon2i.
    Argon2i,
    /// argon2id.
    Argon2id,
}

/// The requested cost of a keyslot's KDF.
#[derive(Clone, Debug)]
pub struct Target {
    kind: KdfKind,
    time: Duration,
    max_memory_kib: u32,
    max_lanes: u32,
    out_len: usize,
}

impl Target {
    /// The cost of `kind` for a derived key of `out_len` bytes, with the defaults that each setter
    /// names.
    #[must_use]
    pub fn new(kind: KdfKind, out_len: usize) -> Self {
        Self {
            kind,
            time: DEFAULT_TIME,
            max_memory_kib: DEFAULT_MAX_MEMORY_KIB,
            max_lanes: DEFAULT_MAX_LANES,
            out_len,
        }
    }

    setters! {
        /// How long unlocking should take. Default: 2 seconds.
        time: Duration,

        /// The maximum memory for argon2, in KiB. Half of the machine's memory is a limit too.
        /// Default: 1 GiB.
        max_memory_kib: u32,

        /// The maximum number of lanes for argon2. The number of processors is a limit too.
        /// Default: 4.
        max_lanes: u32,
    }
}

/// The parameters of a KDF, without its salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// PBKDF2.
    Pbkdf2 {
        /// The hash of its HMAC.
        hash: Hash,
        /// Iterations.
        iterations: u32,
    },
    /// argon2i or argon2id.
    Argon2(Argon2Cost),
}

/// The function with its numbers, for people: `argon2id with 1024 MiB and 7 passes`.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pbkdf2 { hash, iterations } => {
                write!(f, "pbkdf2-{hash} with {iterations} iterations")
            }
            Self::Argon2(cost) => {
                let name = match cost.variant {
                    Argon2Variant::I => "argon2i",
                    Argon2Variant::Id => "argon2id",
                };
                let (mib, passes) = (cost.memory_kib / 1024, cost.passes);
                write!(f, "{name} with {mib} MiB and {passes} passes")
            }
        }
    }
}

impl Cost {
    /// The complete KDF of a keyslot, with `salt`.
    #[must_use]
    pub fn with_salt(self, salt: Vec<u8>) -> Kdf {
        match self {
            Self::Pbkdf2 { hash, iterations } => Kdf::Pbkdf2 {
                hash,
                iterations,
                salt,
            },
            Self::Argon2(cost) => Kdf::Argon2 {
                variant: cost.variant,
                passes: cost.passes,
                memory_kib: cost.memory_kib,
                lanes: cost.lanes,
                salt,
            },
        }
    }
}

/// What a measurement found.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Calibration {
    /// The parameters that take the requested time.
    pub cost: Cost,
    /// The part of the time for which the derivation had its processors, from 0 to 1. The rest was
    /// for other programs.
    pub share: f64,
}

impl Calibration {
    /// Whether other programs had so much of the processors that the cost may be lower than on an
    /// idle machine.
    #[must_use]
    pub fn was_busy(&self) -> bool {
        self.share < IDLE
    }
}

/// Finds the parameters that take `target.time` on this machine. It measures for a small multiple
/// of that time.
///
/// # Errors
/// Returns [`KdfError::Interrupted`] soon after an interrupt, and the errors of the derivations
/// that it measures.
pub fn calibrate(target: &Target, interrupt: &Interrupt) -> Result<Cost, KdfError> {
    Ok(measure(target, interrupt)?.cost)
}

/// Like [`calibrate`], and also tells how busy the machine was.
///
/// # Errors
/// The same as for [`calibrate`].
pub fn measure(target: &Target, interrupt: &Interrupt) -> Result<Calibration, KdfError> {
    let variant = match target.kind {
        KdfKind::Pbkdf2(hash) => {
            let (rate, share) = best_pbkdf2_rate(hash, target.out_len, interrupt)?;
            let iterations = iterations_for(rate, target.time);
            let cost = Cost::Pbkdf2 { hash, iterations };
            return Ok(Calibration { cost, share });
        }
        KdfKind::Argon2i => Argon2Variant::I,
        KdfKind::Argon2id => Argon2Variant::Id,
    };
    let lanes = target.max_lanes.min(processors()).max(1);
    let bounds = Bounds {
        min_memory_kib: MIN_MEMORY_KIB.max(8 * lanes),
        max_memory_kib: target.max_memory_kib.min(half_of_memory_kib()),
    };
    let start = Argon2Cost {
        variant,
        passes: MIN_PASSES,
        memory_kib: bounds.clamp(START_MEMORY_KIB),
        lanes,
    };
    let (cost, share) = search(start, &bounds, target.time, |cost| {
        timed(cost, target.out_len, interrupt)
    })?;
    let cost = Cost::Argon2(cost);
    Ok(Calibration { cost, share })
}

/// The PBKDF2 iterations for the digest of a volume key: as many as take 125 ms, at least 1000.
///
/// # Errors
/// The same as for [`calibrate`].
pub fn digest_iterations(hash: Hash, interrupt: &Interrupt) -> Result<u32, KdfError> {
    let rate = pbkdf2_rate(hash, hash.size(), interrupt)?;
    Ok(iterations_for(rate, DIGEST_TIME))
}

/// The PBKDF2 iterations for a key of `out_len` bytes per second of running time. It measures for
/// about a third of a second.
///
/// # Errors
/// Returns [`KdfError::Interrupted`].
pub fn pbkdf2_rate(hash: Hash, out_len: usize, interrupt: &Interrupt) -> Result<u32, KdfError> {
    Ok(best_pbkdf2_rate(hash, out_len, interrupt)?.0)
}

/// The rate of the fastest of several runs, and the part of the time that they ran.
fn best_pbkdf2_rate(
    hash: Hash,
    out_len: usize,
    interrupt: &Interrupt,
) -> Result<(u32, f64), KdfError> {
    let mut out = vec![0; out_len];
    let mut run = |iterations| {
        let (started, before) = (Instant::now(), thread_time());
        pbkdf2(hash, PASSPHRASE, SALT, iterations, &mut out, interrupt)?;
        Ok(Timed {
            ran: thread_time().saturating_sub(before),
            clock: started.elapsed(),
        })
    };
    let mut iterations = 4 * MIN_ITERATIONS;
    let mut first = run(iterations)?;
    while first.ran < MIN_MEASURED && iterations <= u32::MAX / 2 {
        iterations *= 2;
        first = run(iterations)?;
    }
    let best = fastest(first, || run(iterations))?;
    let rate = u128::from(iterations) * 1_000_000_000 / best.ran.as_nanos().max(1);
    let rate = u32::try_from(rate).unwrap_or(u32::MAX).max(1);
    Ok((rate, best.share()))
}

/// The time of one derivation.
#[derive(Clone, Copy, Debug)]
struct Timed {
    /// How long its threads ran.
    ran: Duration,
    /// How much time passed.
    clock: Duration,
}

impl Timed {
    /// The part of the time for which it ran.
    fn share(self) -> f64 {
        let clock = self.clock.as_secs_f64().max(1e-9);
        (self.ran.as_secs_f64() / clock).min(1.0)
    }
}

/// The fastest of several runs, the first of which was made already.
fn fastest(
    first: Timed,
    mut run: impl FnMut() -> Result<Timed, KdfError>,
) -> Result<Timed, KdfError> {
    let mut best = first;
    for _ in 1..RUNS {
        let next = run()?;
        if next.ran < best.ran {
            best = next;
        }
    }
    Ok(best)
}

/// The time that one argon2 derivation takes on the clock, and the part of it, from 0 to 1, for
/// which the derivation had its processors.
///
/// # Errors
/// Returns the error of the derivation.
pub fn argon2_time(
    cost: Argon2Cost,
    out_len: usize,
    interrupt: &Interrupt,
) -> Result<(Duration, f64), KdfError> {
    let timed = timed(cost, out_len, interrupt)?;
    Ok((timed.clock, timed.share()))
}

fn timed(cost: Argon2Cost, out_len: usize, interrupt: &Interrupt) -> Result<Timed, KdfError> {
    let started = Instant::now();
    let (_, ran) = argon2::timed(cost, PASSPHRASE, SALT, out_len, interrupt)?;
    Ok(Timed {
        ran,
        clock: started.elapsed(),
    })
}

fn iterations_for(rate: u32, time: Duration) -> u32 {
    let iterations = u128::from(rate) * time.as_nanos() / 1_000_000_000;
    u32::try_from(iterations)
        .unwrap_or(u32::MAX)
        .max(MIN_ITERATIONS)
}

struct Bounds {
    min_memory_kib: u32,
    max_memory_kib: u32,
}

impl Bounds {
    fn clamp(&self, kib: u32) -> u32 {
        // Not `u32::clamp`, which panics if the maximum is below the minimum. That happens when the
        // limit for memory is less than the lanes need.
        kib.min(self.max_memory_kib).max(self.min_memory_kib)
    }
}

/// Measures, and scales the work by the measured time, until a measurement is within 95 to 110 % of
/// the requested time. Returns the cost that was closest, and the part of the time that its
/// derivation ran.
fn search(
    mut cost: Argon2Cost,
    bounds: &Bounds,
    time: Duration,
    mut measure: impl FnMut(Argon2Cost) -> Result<Timed, KdfError>,
) -> Result<(Argon2Cost, f64), KdfError> {
    let target = time.as_secs_f64();
    let mut best = (f64::INFINITY, cost, 1.0);
    for _ in 0..MAX_MEASUREMENTS {
        let mut timed = measure(cost)?;
        if timed.clock < LONG {
            timed = fastest(timed, || measure(cost))?;
        }
        let took = timed.ran.as_secs_f64().max(1e-6);
        let off = (took / target).ln().abs();
        if off < best.0 {
            best = (off, cost, timed.share());
        }
        if (0.95..=1.10).contains(&(took / target)) {
            break;
        }
        let next = scaled(cost, target / took, bounds);
        if next == cost {
            break;
        }
        cost = next;
    }
    Ok((best.1, best.2))
}

/// The cost with `factor` times the work. Memory is raised to its limit first, then passes.
fn scaled(cost: Argon2Cost, factor: f64, bounds: &Bounds) -> Argon2Cost {
    let work = f64::from(cost.memory_kib) * f64::from(cost.passes) * factor;
    let memory_kib = bounds.clamp(whole(work / f64::from(MIN_PASSES)));
    let passes = whole(work / f64::from(memory_kib)).max(MIN_PASSES);
    Argon2Cost {
        memory_kib,
        passes,
        ..cost
    }
}

/// The nearest whole number. A cast of a float saturates.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u32 {
    value.round() as u32
}

fn processors() -> u32 {
    std::thread::available_parallelism()
        .ok()
        .and_then(|n| u32::try_from(n.get()).ok())
        .unwrap_or(1)
}

fn half_of_memory_kib() -> u32 {
    let system = rustix::system::sysinfo();
    let bytes = u128::from(system.totalram) * u128::from(system.mem_unit);
    u32::try_from(bytes / 2 / 1024).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Argon2Cost = Argon2Cost {
        variant: Argon2Variant::Id,
        passes: 4,
        memory_kib: START_MEMORY_KIB,
        lanes: 2,
    };
    const BOUNDS: Bounds = Bounds {
        min_memory_kib: 32,
        max_memory_kib: 1 << 20,
    };

    /// A machine on which one pass over one KiB takes `nanos` nanoseconds.
    fn machine(nanos: u64) -> impl FnMut(Argon2Cost) -> Result<Timed, KdfError> {
        busy_machine(nanos, 1)
    }

    /// The same machine, on which the derivation runs only in one of `turns` time slices.
    fn busy_machine(nanos: u64, turns: u32) -> impl FnMut(Argon2Cost) -> Result<Timed, KdfError> {
        move |cost| {
            let work = u64::from(cost.memory_kib) * u64::from(cost.passes);
            let ran = Duration::from_nanos(work * nanos);
            let clock = ran * turns;
            Ok(Timed { ran, clock })
        }
    }

    #[test]
    fn a_busy_machine_gets_the_cost_of_an_idle_one_and_is_called_busy() {
        let idle = search(START, &BOUNDS, DEFAULT_TIME, machine(100)).unwrap();
        let busy = search(START, &BOUNDS, DEFAULT_TIME, busy_machine(100, 4)).unwrap();
        assert_eq!(idle.0, busy.0);
        assert!(idle.1 > IDLE && busy.1 < IDLE, "{} {}", idle.1, busy.1);
    }

    #[test]
    fn the_fastest_of_several_short_runs_counts() {
        // Every run but each fourth one is disturbed, and takes ten times as long.
        let mut calls = 0;
        let mut calm = machine(100);
        let (cost, _) = search(START, &BOUNDS, Duration::from_millis(30), |cost| {
            calls += 1;
            let mut timed = calm(cost)?;
            if calls % RUNS != 0 {
                timed.ran *= 10;
            }
            Ok(timed)
        })
        .unwrap();
        let (undisturbed, _) =
            search(START, &BOUNDS, Duration::from_millis(30), machine(100)).unwrap();
        assert_eq!(cost, undisturbed);
    }

    #[test]
    fn memory_is_raised_before_passes() {
        let (cost, _) = search(START, &BOUNDS, DEFAULT_TIME, machine(1000)).unwrap();
        assert_eq!(cost.passes, 4);
        assert!((450_000..550_000).contains(&cost.memory_kib), "{cost:?}");
    }

    #[test]
    fn passes_are_raised_when_the_memory_is_at_its_limit() {
        let (cost, _) = search(START, &BOUNDS, DEFAULT_TIME, machine(100)).unwrap();
        assert_eq!(cost.memory_kib, 1 << 20);
        assert!((18..=21).contains(&cost.passes), "{cost:?}");
    }

    #[test]
    fn a_slow_machine_gets_less_memory_and_still_four_passes() {
        let (cost, _) = search(START, &BOUNDS, DEFAULT_TIME, machine(100_000)).unwrap();
        assert_eq!(cost.passes, 4);
        assert!((4_500..5_500).contains(&cost.memory_kib), "{cost:?}");
    }

    #[test]
    fn measurements_that_never_settle_end() {
        let mut calls = 0;
        search(START, &BOUNDS, DEFAULT_TIME, |_| {
            calls += 1;
            let took = Duration::from_millis(if calls % 2 == 0 { 400 } else { 9000 });
            Ok(Timed {
                ran: took,
                clock: took,
            })
        })
        .unwrap();
        assert!(calls <= MAX_MEASUREMENTS);
    }

    #[test]
    fn a_limit_below_the_memory_of_the_lanes_is_no_panic() {
        let bounds = Bounds {
            min_memory_kib: 64,
            max_memory_kib: 1,
        };
        assert_eq!(bounds.clamp(5), 64);
    }

    #[test]
    fn iterations_have_a_minimum_and_a_maximum() {
        assert_eq!(iterations_for(1_000_000, Duration::from_secs(2)), 2_000_000);
        assert_eq!(iterations_for(10, Duration::from_millis(1)), 1000);
        assert_eq!(iterations_for(u32::MAX, Duration::from_secs(9)), u32::MAX);
    }

    #[test]
    fn this_machine_is_measured() {
        let target = Target::new(KdfKind::Argon2id, 64)
            .time(Duration::from_millis(40))
            .max_memory_kib(4096);
        let Cost::Argon2(cost) = calibrate(&target, &Interrupt::new()).unwrap() else {
            panic!("another function");
        };
        assert!(cost.passes >= 4 && cost.memory_kib <= 4096 && cost.lanes <= 4);
        let kind = KdfKind::Pbkdf2(Hash::Sha256);
        let cost = calibrate(&Target::new(kind, 32), &Interrupt::new()).unwrap();
        assert!(matches!(cost, Cost::Pbkdf2 { iterations, .. } if iterations > 1000));
    }

    #[test]
    fn an_interrupt_ends_the_calibration() {
        let interrupt = Interrupt::new();
        interrupt.trigger();
        for kind in [KdfKind::Argon2id, KdfKind::Pbkdf2(Hash::Sha256)] {
            let result = calibrate(&Target::new(kind, 32), &interrupt);
            assert!(matches!(result, Err(KdfError::Interrupted)));
        }
    }
}
