//! The speed of ciphers in memory.
//!
//! The ciphers and kernels of one measurement take turns, so that a busy moment of the machine
//! affects all of them. In a turn all threads begin together, at a barrier, and stop after the same
//! time: the speed is the bytes of all of them, divided by the time until the last one stopped. The
//! limit of the CPU is measured in the same way, by the same number of threads. The turns of a
//! single thread are cut into slices that are shorter than the scheduler's, since the best slice
//! had the processor to itself.

use std::hint::black_box;
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use luksmith_formats::cipher::CipherSpec;

use super::statistics::{Lap, Spread, limit, speed};
use crate::crypt::{Scratch, SectorCrypt};
use crate::secret::VolumeKey;
use crate::task::{Error, Kind, Watch};
use crate::xts::Kernel;

/// How many bytes are encrypted at once, unless the caller says otherwise; as by `cryptsetup
/// benchmark`.
pub const BUFFER: usize = 64 << 10;
/// How many bytes go through the bare rounds at once: a multiple of the registers of every kernel,
/// so that all of them are counted.
const LIMIT_BUFFER: usize = 96 << 10;
/// The number of turns.
const ROUNDS: u32 = 10;
/// The length of a slice: the shortest time that is measured of a single thread.
const SLICE: Duration = Duration::from_millis(1);

/// A cipher to measure, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subject {
    /// The cipher.
    pub spec: CipherSpec,
    /// The size of the key in bytes.
    pub key_size: usize,
    /// The size of a sector in bytes.
    pub sector_size: u32,
    /// How many bytes are encrypted at once: whole sectors.
    pub buffer_size: usize,
    /// The kernel, for AES-XTS. Other ciphers have none.
    pub kernel: Option<Kernel>,
    /// How many threads encrypt at the same time, at least 1.
    pub threads: usize,
}

impl Subject {
    /// A cipher with keys of `key_size` bytes and sectors of `sector_size` bytes, by a single
    /// thread and the kernel that the machine chooses, 64 KiB at once.
    #[must_use]
    pub fn new(spec: CipherSpec, key_size: usize, sector_size: u32) -> Self {
        Self {
            spec,
            key_size,
            sector_size,
            buffer_size: BUFFER,
            kernel: None,
            threads: 1,
        }
    }

    setters! {
        /// How many bytes are encrypted at once: whole sectors.
        buffer_size: usize,

        /// The kernel, for AES-XTS. Other ciphers have none.
        kernel: Option<Kernel>,

        /// How many threads encrypt at the same time, at least 1.
        threads: usize,
    }
}

/// What was measured of one subject: bytes a second, of all threads together.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Speed {
    /// What was measured.
    pub subject: Subject,
    /// The speed of encryption.
    pub encrypt: Spread,
    /// The speed of decryption.
    pub decrypt: Spread,
    /// The rounds of AES at the kernel's register width with nothing else, by as many threads. No
    /// kernel of that width is faster. `None` where the kernel has no such limit.
    pub limit: Option<u64>,
}

impl Speed {
    /// The part of the limit that the slower direction reaches.
    #[must_use]
    pub fn of_limit(&self) -> Option<f64> {
        let limit = self.limit?;
        Some(self.slower() as f64 / limit.max(1) as f64)
    }

    /// The best of the slower direction.
    #[must_use]
    pub fn slower(&self) -> u64 {
        self.encrypt.best.min(self.decrypt.best)
    }

    /// Whether the machine had other work meanwhile.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.encrypt.is_busy() || self.decrypt.is_busy()
    }
}

/// Measures every subject for `long` in each direction, in turns.
///
/// # Errors
/// [`Kind::Parameters`] where a cipher has no such key, sector size or buffer, [`Kind::Memory`]
/// where locked memory is short, [`Kind::Interrupted`].
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
    let mut speeds: Vec<Speed> = runners.into_iter().map(Runner::speed).collect();
    share_limits(&mut speeds);
    Ok(speeds)
}

/// Gives subjects with the same limit its highest measurement.
fn share_limits(speeds: &mut [Speed]) {
    let all = speeds.to_vec();
    for speed in speeds.iter_mut().filter(|speed| speed.limit.is_some()) {
        let of = |subject: &Subject| (subject.kernel, subject.key_size, subject.threads);
        let same = || {
            let same = all.iter();
            same.filter(|other| of(&other.subject) == of(&speed.subject))
        };
        speed.limit = Some(limit(
            same().filter_map(|other| other.limit),
            same().flat_map(|other| [other.encrypt.best, other.decrypt.best]),
        ));
    }
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
    scratch: Scratch,
}

impl Runner {
    fn new(subject: Subject) -> Result<Self, Error> {
        let (size, sector) = (subject.buffer_size, subject.sector_size as usize);
        if size == 0 || sector == 0 || !size.is_multiple_of(sector) {
            return Err(Error::parameters(format!(
                "{size} bytes at once are not whole sectors of {sector} bytes"
            )));
        }
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
        let Subject {
            kernel,
            key_size,
            buffer_size,
            ..
        } = self.subject;
        let threads = &mut self.threads;
        let encrypt = |thread: &mut Thread| thread.scratch.encrypt(&thread.crypt);
        self.encrypt
            .extend(turn(threads, long, buffer_size, encrypt));
        let decrypt = |thread: &mut Thread| thread.scratch.decrypt(&thread.crypt);
        self.decrypt
            .extend(turn(threads, long, buffer_size, decrypt));
        let limited = kernel.filter(|kernel| kernel.rounds_alone(key_size, 0));
        if let Some(kernel) = limited {
            let alone = |_: &mut Thread| {
                kernel.rounds_alone(key_size, black_box(LIMIT_BUFFER));
            };
            self.limit.extend(turn(threads, long, LIMIT_BUFFER, alone));
        }
    }

    fn speed(self) -> Speed {
        let limit = (!self.limit.is_empty()).then(|| Spread::of_speeds(self.limit).best);
        Speed {
            subject: self.subject,
            encrypt: Spread::of_speeds(self.encrypt),
            decrypt: Spread::of_speeds(self.decrypt),
            limit,
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
            scratch: Scratch::new(subject.buffer_size),
        })
    }
}

/// The speeds of one turn, in which every thread repeats `work` on `bytes` bytes for `long`: of the
/// turn, or of each slice of a single thread.
fn turn(
    threads: &mut [Thread],
    long: Duration,
    bytes: usize,
    work: impl Fn(&mut Thread) + Sync,
) -> Vec<f64> {
    let bytes = bytes as u64;
    if let [only] = threads {
        work(only); // brings the data into the cache
        let epoch = Instant::now();
        let mut speeds = Vec::new();
        let mut begin = Duration::ZERO;
        while begin < long.max(Duration::from_nanos(1)) {
            let lap = repeat(epoch, begin, begin + SLICE.min(long), bytes, || work(only));
            begin = lap.end;
            speeds.push(speed(&[lap]));
        }
        return speeds;
    }
    let (start, epoch, work) = (&Barrier::new(threads.len()), &OnceLock::new(), &work);
    let laps: Vec<Lap> = std::thread::scope(|scope| {
        let running: Vec<_> = threads
            .iter_mut()
            .map(|thread| {
                scope.spawn(move || {
                    work(thread); // brings the data into the cache
                    start.wait();
                    let epoch = *epoch.get_or_init(Instant::now);
                    repeat(epoch, epoch.elapsed(), long, bytes, || work(thread))
                })
            })
            .collect();
        let ended = running.into_iter().map(|running| running.join());
        ended
            .map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    vec![speed(&laps)]
}

/// Repeats `work` until `until`, at least once. Times are since `epoch`.
fn repeat(
    epoch: Instant,
    begin: Duration,
    until: Duration,
    bytes: u64,
    mut work: impl FnMut(),
) -> Lap {
    let mut times = 0;
    loop {
        work();
        times += 1;
        let end = epoch.elapsed();
        if end >= until {
            let work = times * bytes;
            return Lap { begin, end, work };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_speed(threads: usize, speed: u64, limit: u64) -> Speed {
        let spread = Spread::of_speeds(vec![speed as f64]);
        let spec = CipherSpec::parse("aes-xts-plain64").unwrap();
        let kernel = Some(Kernel::Portable);
        Speed {
            subject: Subject::new(spec, 64, 512).kernel(kernel).threads(threads),
            encrypt: spread,
            decrypt: spread,
            limit: Some(limit),
        }
    }

    #[test]
    fn subjects_with_the_same_limit_share_the_highest_measurement() {
        let mut speeds = [
            of_speed(1, 80, 90),
            of_speed(1, 101, 100),
            of_speed(2, 150, 190),
        ];
        share_limits(&mut speeds);
        assert_eq!(
            speeds.each_ref().map(|speed| speed.limit),
            [101, 101, 190].map(Some)
        );
        assert!(speeds.iter().all(|speed| speed.of_limit().unwrap() <= 1.0));
    }

    #[test]
    fn a_buffer_has_whole_sectors() {
        let spec = CipherSpec::parse("aes-xts-plain64").unwrap();
        for size in [0, 1000, 4608] {
            let subject = Subject::new(spec, 64, 4096).buffer_size(size);
            let refused = ciphers(vec![subject], SLICE, &crate::task::Silent::default());
            assert_eq!(refused.unwrap_err().kind(), Kind::Parameters, "{size}");
        }
    }

    #[test]
    fn every_thread_works_in_every_turn() {
        let spec = CipherSpec::parse("aes-xts-plain64").unwrap();
        let subject = Subject::new(spec, 64, 4096).threads(3);
        let watch = crate::task::Silent::default();
        let speeds = ciphers(vec![subject], Duration::from_micros(10), &watch).unwrap();
        assert_eq!(speeds[0].encrypt.runs, u64::from(ROUNDS));
        assert!(speeds[0].decrypt.best > 0);
    }
}
