//! The speed of ciphers in memory.
//!
//! The ciphers and kernels of one measurement take turns, so that a busy moment of the machine
//! affects all of them. A single thread is timed in slices that are shorter than the scheduler's:
//! the best slice had the processor to itself. Several threads are timed turn by turn, since the
//! best slices of different threads may be of different moments, and would add up to more than the
//! machine does.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use luksmith_formats::cipher::CipherSpec;

use crate::crypt::{IvSector, SectorCrypt};
use crate::secret::VolumeKey;
use crate::sectors::{Cipher, Plain, Sectors};
use crate::task::{Error, Kind, Watch};
use crate::xts::Kernel;

/// How many bytes are encrypted at once, as by `cryptsetup benchmark`.
const BUFFER: usize = 64 << 10;
const ROUNDS: u32 = 5;
/// The length of a slice: the shortest time that is measured of a single thread.
const SLICE: Duration = Duration::from_millis(1);

/// A cipher to measure, and how.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Subject {
    /// The cipher.
    pub spec: CipherSpec,
    /// The size of the key in bytes.
    pub key_size: usize,
    /// The size of a sector in bytes.
    pub sector_size: u32,
    /// The kernel, for AES-XTS. Other ciphers have none.
    pub kernel: Option<Kernel>,
    /// How many threads encrypt at the same time, at least 1.
    pub threads: usize,
}

impl Subject {
    /// A cipher with keys of `key_size` bytes and sectors of `sector_size` bytes, by a single
    /// thread and the kernel that the machine chooses.
    #[must_use]
    pub fn new(spec: CipherSpec, key_size: usize, sector_size: u32) -> Self {
        Self {
            spec,
            key_size,
            sector_size,
            kernel: None,
            threads: 1,
        }
    }

    setters! {
        /// The kernel, for AES-XTS. Other ciphers have none.
        kernel: Option<Kernel>,

        /// How many threads encrypt at the same time, at least 1.
        threads: usize,
    }
}

/// A speed in bytes a second, of all threads together.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Rate {
    /// The rate of the best turn.
    pub best: u64,
    /// The median of the turns. If it is far below the best, the machine was busy.
    pub median: u64,
}

/// What was measured of one subject.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Speed {
    /// What was measured.
    pub subject: Subject,
    /// The speed of encryption.
    pub encrypt: Rate,
    /// The speed of decryption.
    pub decrypt: Rate,
    /// The rounds of AES at the kernel's register width with nothing else, which no such kernel
    /// can exceed. `None` where the kernel has no such limit.
    pub limit: Option<Rate>,
}

/// Measures every subject for `long` in each direction, in turns.
///
/// # Errors
/// [`Kind::Parameters`] where a cipher has no such key or sector size, [`Kind::Memory`] where
/// locked memory is short, [`Kind::Interrupted`].
///
pub fn ciphers(
    subjects: Vec<Subject>,
    long: Duration,
    watch: &dyn Watch,
) -> Result<Vec<Speed>, Error> {
    let mut runners = Vec::new();
    for subject in subjects {
        runners.push(Runner::new(subject)?);
    }
    for _ in 0..ROUNDS {
        for runner in &mut runners {
            watch.check()?;
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

/// A thread that encrypts, with a key and a buffer of its own, as if it had a volume of its own.
struct Thread {
    crypt: SectorCrypt,
    plain: Option<Sectors<Plain>>,
}

impl Runner {
    fn new(subject: Subject) -> Result<Self, Error> {
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
    fn new(subject: &Subject) -> Result<Self, Error> {
        let key = VolumeKey::random(subject.key_size)?;
        let (spec, sector_size) = (subject.spec, subject.sector_size);
        let crypt = match subject.kernel {
            Some(kernel) => SectorCrypt::with_kernel(spec, sector_size, &key, kernel),
            None => SectorCrypt::new(spec, sector_size, &key),
        };
        Ok(Self {
            crypt: crypt.map_err(|error| Error::new(Kind::Parameters, error).about(spec))?,
            plain: None,
        })
    }

    /// Encrypts and decrypts for `long` each.
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

/// The rates in bytes a second: of each slice of a single thread, or of all threads in this turn.
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

/// Runs `work` in all threads at the same time.
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

    /// Forgets the first buffer, which only warms up.
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

    /// The best in gigabytes (10⁹ bytes) a second.
    #[must_use]
    pub fn gigabytes(&self) -> f64 {
        self.best as f64 / 1e9
    }
}

/// Casts of floats saturate.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

impl Speed {
    /// The part of the limit that the slower direction reaches.
    #[must_use]
    pub fn of_limit(&self) -> Option<f64> {
        let limit = self.limit.as_ref()?;
        Some(self.slower() / limit.gigabytes().max(1e-9))
    }

    /// The slower direction, in gigabytes a second.
    #[must_use]
    pub fn slower(&self) -> f64 {
        self.encrypt.gigabytes().min(self.decrypt.gigabytes())
    }

    /// How many per cent the median is below the best.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let lost = self.encrypt.best.saturating_sub(self.encrypt.median);
        lost * 100 / self.encrypt.best.max(1)
    }
}
