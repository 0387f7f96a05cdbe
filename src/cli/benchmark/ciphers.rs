//! Ciphers in memory, in rounds: all of a group take their turn in each, so that a busy moment hits all of them.
//!
//! A thread by itself is timed in slices shorter than what the scheduler gives to others, so that the best slice had the processor to
//! itself. Several threads are timed by turns: their best slices may be of different moments, and add up to more than there is.

use std::fmt;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use luksmith::crypt::{IvSector, SectorCrypt};
use luksmith::secret::VolumeKey;
use luksmith::sectors::{Cipher, Plain, Sectors};
use luksmith::xts::Kernel;
use luksmith_formats::cipher::CipherSpec;
use serde_json::{Value, json};

use crate::cli::error::{CommandError, Kind};
use crate::cli::signals::Signals;

/// What is encrypted at once: as cryptsetup's.
const BUFFER: usize = 64 << 10;
const ROUNDS: u32 = 5;
/// The least that is timed, of one thread.
const SLICE: Duration = Duration::from_millis(1);

/// What to measure.
#[derive(Clone, Copy)]
pub(super) struct Subject {
    pub(super) spec: CipherSpec,
    pub(super) key_size: usize,
    pub(super) sector_size: u32,
    /// For AES-XTS.
    pub(super) kernel: Option<Kernel>,
    pub(super) threads: usize,
}

/// Bytes a second, of all threads together.
pub(super) struct Rate {
    pub(super) best: u64,
    pub(super) median: u64,
}

pub(super) struct Speed {
    pub(super) subject: Subject,
    pub(super) encrypt: Rate,
    pub(super) decrypt: Rate,
    /// The rounds of AES alone; absent where the kernel has no such limit.
    pub(super) limit: Option<Rate>,
}

/// Measures each subject for so long in each direction.
pub(super) fn measure(
    subjects: Vec<Subject>,
    long: Duration,
    signals: &Signals,
) -> Result<Vec<Speed>, CommandError> {
    let mut runners = Vec::new();
    for subject in subjects {
        runners.push(Runner::new(subject)?);
    }
    for _ in 0..ROUNDS {
        for runner in &mut runners {
            signals.check()?;
            runner.take_turn(long / ROUNDS);
        }
    }
    Ok(runners.into_iter().map(Runner::speed).collect())
}

struct Runner {
    subject: Subject,
    threads: Vec<Thread>,
    encrypt: Vec<f64>,
    decrypt: Vec<f64>,
    limit: Vec<f64>,
}

/// A thread has a key and a buffer of its own, as if each had a volume: nothing is shared but the machine.
struct Thread {
    crypt: SectorCrypt,
    plain: Option<Sectors<Plain>>,
}

impl Runner {
    fn new(subject: Subject) -> Result<Self, CommandError> {
        let mut threads = Vec::new();
        for _ in 0..subject.threads {
            threads.push(Thread::new(&subject)?);
        }
        Ok(Self {
            subject,
            threads,
            encrypt: Vec::new(),
            decrypt: Vec::new(),
            limit: Vec::new(),
        })
    }

    fn take_turn(&mut self, long: Duration) {
        let turned = together(&mut self.threads, |thread| thread.turn(long));
        let (encrypting, decrypting): (Vec<_>, Vec<_>) = turned.into_iter().unzip();
        self.encrypt.extend(rates(encrypting));
        self.decrypt.extend(rates(decrypting));
        let Subject {
            kernel, key_size, ..
        } = self.subject;
        let limited = kernel.filter(|kernel| kernel.rounds_alone(key_size, 0));
        if let Some(kernel) = limited {
            let alone = |_: &mut Thread| rounds_alone(kernel, key_size, long);
            self.limit.extend(rates(together(&mut self.threads, alone)));
        }
    }

    fn speed(self) -> Speed {
        Speed {
            subject: self.subject,
            encrypt: Rate::of(self.encrypt),
            decrypt: Rate::of(self.decrypt),
            limit: (!self.limit.is_empty()).then(|| Rate::of(self.limit)),
        }
    }
}

impl Thread {
    fn new(subject: &Subject) -> Result<Self, CommandError> {
        let key = VolumeKey::random(subject.key_size)?;
        let (spec, sector_size) = (subject.spec, subject.sector_size);
        let crypt = match subject.kernel {
            Some(kernel) => SectorCrypt::with_kernel(spec, sector_size, &key, kernel),
            None => SectorCrypt::new(spec, sector_size, &key),
        };
        Ok(Self {
            crypt: crypt.map_err(|error| CommandError::new(Kind::Parameters, error).about(spec))?,
            plain: None,
        })
    }

    /// Encrypts and decrypts for so long each.
    fn turn(&mut self, long: Duration) -> (Clock, Clock) {
        let buffer = self.plain.take();
        let mut plain = buffer.unwrap_or_else(|| Sectors::zeroed(BUFFER));
        let mut encrypting = Clock::default();
        let mut decrypting = Clock::default();
        loop {
            let sealed: Sectors<Cipher> =
                encrypting.time(|| self.crypt.encrypt(IvSector(0), plain));
            plain = decrypting.time(|| self.crypt.decrypt(IvSector(0), sealed));
            if encrypting.took + decrypting.took >= 2 * long {
                break;
            }
            encrypting.warm();
            decrypting.warm();
        }
        self.plain = Some(plain);
        (encrypting, decrypting)
    }
}

fn rounds_alone(kernel: Kernel, key_size: usize, long: Duration) -> Clock {
    let mut clock = Clock::default();
    loop {
        clock.time(|| kernel.rounds_alone(key_size, black_box(BUFFER)));
        if clock.took >= long {
            return clock;
        }
        clock.warm();
    }
}

/// Bytes a second in each slice of one thread, or of all threads in this turn.
fn rates(mut clocks: Vec<Clock>) -> Vec<f64> {
    match &mut clocks[..] {
        [clock] if !clock.slices.is_empty() => std::mem::take(&mut clock.slices),
        clocks => vec![
            clocks
                .iter()
                .map(|clock| rate(clock.buffers, clock.took))
                .sum(),
        ],
    }
}

/// Each does its work at the same time as the others.
fn together<T: Send>(threads: &mut [Thread], work: impl Fn(&mut Thread) -> T + Sync) -> Vec<T> {
    if let [only] = threads {
        return vec![work(only)];
    }
    let (start, work) = (&Barrier::new(threads.len()), &work);
    std::thread::scope(|scope| {
        let running: Vec<_> = threads
            .iter_mut()
            .map(|thread| {
                scope.spawn(move || {
                    start.wait();
                    work(thread)
                })
            })
            .collect();
        let ended = running.into_iter().map(|running| running.join());
        ended
            .map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Adds up the time that buffers took.
#[derive(Default)]
struct Clock {
    took: Duration,
    buffers: u32,
    is_warm: bool,
    slice: (u32, Duration),
    /// The rate of each slice.
    slices: Vec<f64>,
}

impl Clock {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        let took = start.elapsed();
        self.took += took;
        self.buffers += 1;
        self.slice.0 += 1;
        self.slice.1 += took;
        if self.slice.1 >= SLICE {
            let (buffers, took) = std::mem::take(&mut self.slice);
            self.slices.push(rate(buffers, took));
        }
        done
    }

    /// The first buffer only warms up, if there is time for more.
    fn warm(&mut self) {
        if !self.is_warm {
            *self = Self {
                is_warm: true,
                ..Self::default()
            };
        }
    }
}

fn rate(buffers: u32, took: Duration) -> f64 {
    f64::from(buffers) * BUFFER as f64 / took.as_secs_f64().max(1e-9)
}

impl Rate {
    fn of(mut rates: Vec<f64>) -> Self {
        rates.sort_by(f64::total_cmp);
        Self {
            best: whole(rates.last().copied().unwrap_or_default()),
            median: whole(rates.get(rates.len() / 2).copied().unwrap_or_default()),
        }
    }

    /// GB/s.
    pub(super) fn gigabytes(&self) -> f64 {
        self.best as f64 / 1e9
    }
}

/// Casts of floats saturate.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

/// The head of the table whose rows a [`Speed`] shows.
pub(super) const HEADER: &str = "\
#  Algorithm             Key  Sector  Kernel    Threads      Encryption      Decryption  Of limit";

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Subject {
            spec,
            key_size,
            sector_size,
            kernel,
            threads,
        } = self.subject;
        let of_limit = self
            .of_limit()
            .map_or_else(|| "-".to_owned(), |parts| format!("{:.0} %", parts * 100.0));
        write!(
            f,
            "{:<22} {:>4}b  {sector_size:>6}  {:<8}  {threads:>7}  {:>14}  {:>14}  {of_limit:>8}",
            spec.to_string(),
            key_size * 8,
            kernel.map_or("-", Kernel::name),
            mib(self.encrypt.best),
            mib(self.decrypt.best),
        )
    }
}

impl Speed {
    /// What the slower direction reaches of the limit.
    fn of_limit(&self) -> Option<f64> {
        let limit = self.limit.as_ref()?;
        Some(self.slower() / limit.gigabytes().max(1e-9))
    }

    /// GB/s of the slower direction.
    pub(super) fn slower(&self) -> f64 {
        self.encrypt.gigabytes().min(self.decrypt.gigabytes())
    }

    /// How many per cent the median is below the best.
    pub(super) fn lost(&self) -> u64 {
        let lost = self.encrypt.best.saturating_sub(self.encrypt.median);
        lost * 100 / self.encrypt.best.max(1)
    }

    pub(super) fn json(&self) -> Value {
        let subject = &self.subject;
        json!({
            "cipher": subject.spec.to_string(),
            "key_bits": subject.key_size * 8,
            "sector_size": subject.sector_size,
            "kernel": subject.kernel.map(Kernel::name),
            "threads": subject.threads,
            "encrypt": self.encrypt.best,
            "encrypt_median": self.encrypt.median,
            "decrypt": self.decrypt.best,
            "decrypt_median": self.decrypt.median,
            "limit": self.limit.as_ref().map(|limit| limit.best),
        })
    }
}

/// MiB a second with one digit after the point, as cryptsetup prints it.
fn mib(rate: u64) -> String {
    let tenths = u128::from(rate) * 10 / (1 << 20);
    format!("{}.{} MiB/s", tenths / 10, tenths % 10)
}
