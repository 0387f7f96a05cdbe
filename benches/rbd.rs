//! What encryption costs a client of Ceph: `cargo bench --bench rbd`.
//!
//! Each round does the same work on one image in three ways in turn: librbd without encryption, a
//! volume of luksmith on librbd, and librbd's own encryption, which opens the same volume. So a
//! busy machine slows all of them. Printed are medians of nine rounds, with the least and the most.
//! CPU is the time of this process, with the threads of librbd. The cluster is in memory and on the
//! loopback interface: its rates say nothing about a real one. The output is Markdown; dated
//! results are in `benches/record/`.

#![allow(missing_docs, clippy::print_stdout)]
#![allow(unsafe_code)] // functions of a library in C

use core::ffi::{c_char, c_int, c_void};
use std::ffi::CString;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libloading::Library;
use luksmith::Interrupt;
use luksmith::backend::rbd::{RbdBackend, RbdOptions};
use luksmith::container::{Container, OpenOptions, Undo, Which};
use luksmith::secret::Passphrase;
use luksmith::sectors::{Plain, Sectors};
use luksmith::volume::Volume;
use luksmith_formats::rbd::Uri;
use rustix::time::{ClockId, clock_gettime};
use support::bench::{Arguments, cpu_model, median, record};
use support::ceph::{Ceph, POOL};

const ROUNDS: usize = 9;
const IMAGE: &str = "bench";
const PASSPHRASE: &str = "correct horse battery staple";

/// The bytes of the volume that are read and written.
const SIZE: u64 = 256 << 20;

/// How long each way does the same work in a round.
const A_WHILE: Duration = Duration::from_secs(1);

/// What is done, by the name of the row.
struct Load {
    name: &'static str,
    write: bool,
    random: bool,
    block: usize,
    threads: usize,
}

const LOADS: [Load; 4] = [
    Load {
        name: "sequential 1 MiB reads",
        write: false,
        random: false,
        block: 1 << 20,
        threads: 4,
    },
    Load {
        name: "sequential 1 MiB writes",
        write: true,
        random: false,
        block: 1 << 20,
        threads: 4,
    },
    Load {
        name: "random 4 KiB reads, depth 32",
        write: false,
        random: true,
        block: 4096,
        threads: 32,
    },
    // Less than a sector: both ways of encryption read the rest of it.
    Load {
        name: "random 512-byte writes, depth 32",
        write: true,
        random: true,
        block: 512,
        threads: 32,
    },
];

const WAYS: [&str; 3] = ["librbd", "luksmith", "librbd encrypted"];

fn main() {
    let Some(arguments) = Arguments::read() else {
        return;
    };
    let Some(ceph) = Ceph::running(Path::new(env!("CARGO_TARGET_TMPDIR"))) else {
        return;
    };
    make_volume(ceph);
    println!("CPU: {}\n", cpu_model());
    println!("| load | way | MiB/s | operations/s | CPU ns/B | CPU above librbd, ns/B |");
    println!("|---|---|---|---|---|---|");
    let ours = |write| luksmith(ceph, write);
    for load in LOADS.iter().filter(|load| arguments.want(load.name)) {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            // One after the other: a writer has the image for itself.
            let raw = measure(load, &Librbd::open(ceph, false));
            let own = measure(load, &ours(load.write));
            let theirs = measure(load, &Librbd::open(ceph, true));
            rounds.push([raw, own, theirs]);
        }
        for (way, name) in WAYS.iter().enumerate() {
            show(load, name, way, &rounds);
        }
    }
    // Threads of the libraries may still run.
    std::process::exit(0);
}

fn show(load: &Load, name: &str, way: usize, rounds: &[[Cost; 3]]) {
    let of = |value: &dyn Fn(&[Cost; 3]) -> f64| {
        let values = || rounds.iter().map(value);
        let least = values().fold(f64::INFINITY, f64::min);
        let most = values().fold(f64::NEG_INFINITY, f64::max);
        (median(values()), least, most)
    };
    let rate = of(&|round| round[way].per_second(load));
    let cpu = of(&|round| round[way].cpu_per_byte(load));
    let above = of(&|round| round[way].cpu_per_byte(load) - round[0].cpu_per_byte(load));
    let mib = |rate: f64| rate * load.block as f64 / f64::from(1 << 20);
    println!(
        "| {} | {name} | {:.0} | {:.0} ({:.0} to {:.0}) | {:.3} ({:.3} to {:.3}) | {:+.3} ({:+.3} to {:+.3}) |",
        load.name,
        mib(rate.0),
        rate.0,
        rate.1,
        rate.2,
        cpu.0,
        cpu.1,
        cpu.2,
        above.0,
        above.1,
        above.2,
    );
    for round in rounds {
        record(
            &format!("{}, operations/s", load.name),
            name,
            round[way].per_second(load),
        );
        record(
            &format!("{}, CPU ns/B", load.name),
            name,
            round[way].cpu_per_byte(load),
        );
    }
}

/// What a way needed in a round.
#[derive(Clone, Copy)]
struct Cost {
    operations: u64,
    wall: Duration,
    cpu: Duration,
}

impl Cost {
    fn per_second(&self, _: &Load) -> f64 {
        self.operations as f64 / self.wall.as_secs_f64()
    }

    fn cpu_per_byte(&self, load: &Load) -> f64 {
        self.cpu.as_nanos() as f64 / (self.operations as f64 * load.block as f64)
    }
}

/// A way to read and write the volume.
trait Disk: Sync {
    fn read(&self, at: u64, into: &mut [u8]);
    fn write(&self, at: u64, from: &[u8]);
}

fn measure(load: &Load, disk: &dyn Disk) -> Cost {
    let (operations, next) = (AtomicU64::new(0), AtomicU64::new(0));
    let blocks = SIZE / load.block as u64;
    let (start, before) = (Instant::now(), cpu());
    std::thread::scope(|scope| {
        for thread in 0..load.threads {
            let (operations, next) = (&operations, &next);
            scope.spawn(move || {
                let mut buffer = vec![0x5a; load.block];
                let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(thread as u64 + 1);
                while start.elapsed() < A_WHILE {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let block = match load.random {
                        true => state,
                        false => next.fetch_add(1, Ordering::Relaxed),
                    };
                    let at = block % blocks * load.block as u64;
                    match load.write {
                        true => disk.write(at, &buffer),
                        false => disk.read(at, &mut buffer),
                    }
                    operations.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    Cost {
        operations: operations.into_inner(),
        wall: start.elapsed(),
        cpu: cpu() - before,
    }
}

/// The time of all threads of this process on a processor.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.cast_unsigned(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

/// Makes the volume and fills it.
fn make_volume(ceph: &Ceph) {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), PASSPHRASE).unwrap();
    let create = std::process::Command::new(env!("CARGO_BIN_EXE_luksmith"))
        .arg("create")
        .arg(ceph.uri(IMAGE))
        .arg("--key-file")
        .arg(key.path())
        .args(["--size", &SIZE.to_string(), "--pbkdf", "pbkdf2"])
        .args(["--pbkdf-force-iterations", "1000"])
        .output()
        .unwrap();
    assert!(create.status.success(), "{create:?}");
    let volume = luksmith(ceph, true);
    for at in (0..SIZE).step_by(1 << 20) {
        Disk::write(&volume, at, &vec![0xa5; 1 << 20]);
    }
}

fn luksmith(ceph: &Ceph, write: bool) -> Volume {
    let uri = Uri::parse(&ceph.uri(IMAGE)).unwrap();
    let backend = Arc::new(RbdBackend::open(&uri, RbdOptions::new().write(write)).unwrap());
    let container = Container::open(backend.clone(), OpenOptions::new(Undo::NotLookedFor)).unwrap();
    let passphrase = Passphrase::copy_from(PASSPHRASE.as_bytes()).unwrap();
    let unlocked = container.unlock(&passphrase, Which::Any, &Interrupt::new());
    container.volume(backend, &unlocked.unwrap()).unwrap()
}

impl Disk for Volume {
    /// As a server does it, without a copy.
    fn read(&self, at: u64, into: &mut [u8]) {
        let sectors = self.read_sectors(at, into.len()).unwrap();
        std::hint::black_box(&sectors);
    }

    /// As a server does it: whole sectors are encrypted in the buffer that received them. Here that
    /// buffer has arbitrary bytes.
    fn write(&self, at: u64, from: &[u8]) {
        if from.len().is_multiple_of(4096) {
            let received = Sectors::<Plain>::with_len(from.len());
            self.write_sectors(at, received).unwrap();
        } else {
            self.write_at(at, from).unwrap();
        }
    }
}

/// `rbd_encryption_luks2_format_options_t`.
#[repr(C)]
struct Luks2Options {
    algorithm: c_int,
    passphrase: *const c_char,
    length: usize,
}

type Handle = *mut c_void;

/// An image that librbd opens, with or without its encryption.
struct Librbd {
    rados: Library,
    rbd: Library,
    cluster: Handle,
    pool: Handle,
    image: Handle,
    /// Where the volume's data begins, if librbd does not decrypt.
    offset: u64,
}

// SAFETY: librbd's images may be used from any thread.
unsafe impl Sync for Librbd {}

/// Calls a function of a library by its name and signature.
macro_rules! call {
    ($library:expr, $name:literal, ($($type:ty),*) $(-> $answer:ty)?, $($value:expr),*) => {{
        // SAFETY: the signature is that of the declaration in Ceph's headers.
        let function = unsafe {
            $library.get::<unsafe extern "C" fn($($type),*) $(-> $answer)?>($name)
        };
        let function = function.unwrap();
        // SAFETY: live handles, strings that end in NUL, buffers of the passed lengths.
        unsafe { function($($value),*) }
    }};
}

impl Librbd {
    fn open(ceph: &Ceph, encrypted: bool) -> Self {
        // SAFETY: the libraries' constructors need nothing of the program that loads them.
        let [rados, rbd] =
            ["librados.so.2", "librbd.so.1"].map(|name| unsafe { Library::new(name) }.unwrap());
        let text = |text: &str| CString::new(text).unwrap();
        let (mut cluster, mut pool, mut image) = (null_mut(), null_mut(), null_mut());
        let answer = call!(rados, "rados_create", (*mut Handle, *const c_char) -> c_int, &raw mut cluster, null());
        assert_eq!(answer, 0);
        let conf = text(ceph.conf().to_str().unwrap());
        let answer = call!(rados, "rados_conf_read_file", (Handle, *const c_char) -> c_int, cluster, conf.as_ptr());
        assert_eq!(answer, 0);
        let (cache, off) = (text("rbd_cache"), text("false"));
        let answer = call!(rados, "rados_conf_set", (Handle, *const c_char, *const c_char) -> c_int, cluster, cache.as_ptr(), off.as_ptr());
        assert_eq!(answer, 0);
        assert_eq!(call!(rados, "rados_connect", (Handle) -> c_int, cluster), 0);
        let name = text(POOL);
        let answer = call!(rados, "rados_ioctx_create", (Handle, *const c_char, *mut Handle) -> c_int, cluster, name.as_ptr(), &raw mut pool);
        assert_eq!(answer, 0);
        let name = text(IMAGE);
        let answer = call!(rbd, "rbd_open", (Handle, *const c_char, *mut Handle, *const c_char) -> c_int, pool, name.as_ptr(), &raw mut image, null());
        assert_eq!(answer, 0);
        let options = Luks2Options {
            algorithm: 1, // AES-256
            passphrase: PASSPHRASE.as_ptr().cast(),
            length: PASSPHRASE.len(),
        };
        if encrypted {
            let answer = call!(rbd, "rbd_encryption_load", (Handle, c_int, *const Luks2Options, usize) -> c_int, image, 1, &raw const options, size_of::<Luks2Options>());
            assert_eq!(answer, 0);
        }
        let offset = if encrypted { 0 } else { 16 << 20 };
        Self {
            rados,
            rbd,
            cluster,
            pool,
            image,
            offset,
        }
    }
}

impl Disk for Librbd {
    fn read(&self, at: u64, into: &mut [u8]) {
        let (buffer, len) = (into.as_mut_ptr().cast(), into.len());
        let read = call!(self.rbd, "rbd_read", (Handle, u64, usize, *mut c_char) -> isize, self.image, at + self.offset, len, buffer);
        assert_eq!(usize::try_from(read), Ok(len));
    }

    fn write(&self, at: u64, from: &[u8]) {
        let (buffer, len) = (from.as_ptr().cast(), from.len());
        let written = call!(self.rbd, "rbd_write", (Handle, u64, usize, *const c_char) -> isize, self.image, at + self.offset, len, buffer);
        assert_eq!(usize::try_from(written), Ok(len));
    }
}

impl Drop for Librbd {
    fn drop(&mut self) {
        call!(self.rbd, "rbd_close", (Handle) -> c_int, self.image);
        call!(self.rados, "rados_ioctx_destroy", (Handle), self.pool);
        call!(self.rados, "rados_shutdown", (Handle), self.cluster);
    }
}
