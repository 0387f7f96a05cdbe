//! Compares the kernels of AES-XTS with each other, with the bare rounds of AES at the same width,
//! and with Linux' assembly. It prints a table for `benches/record`.
//!
//! `taskset -c 1 cargo bench --bench kernels`. In each round every kernel has a turn. The best turn
//! counts, since other work on the machine can only slow a turn down.
//!
//! `benches/linux-xts` builds Linux' assembly from Debian's package of Linux' source. Without the
//! package a line says so, and the rest is measured. `LUKSMITH_BENCH_RECORD=FILE` adds each figure
//! as a line of JSON to a file.
//!
//! With `--compare` there are fewer rounds, only the kernels of luksmith, and the output is a line
//! of JSON for each kernel and each shape (sector size and length). `benches/compare` builds this
//! program for older commits too, so it uses no other package.

#![allow(clippy::print_stdout)] // the table is its purpose

mod linux;

use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use linux::Assembly;
use luksmith::xts::{Kernel, TweakForm, Tweaks, Xts};

/// The minimum size of a turn, so that reading the clock does not matter.
const TURN: usize = 1 << 20;
const ROUNDS: usize = 300;
const COMPARED_ROUNDS: usize = 40;

/// The number of the first sector, in units of 512 bytes.
const FIRST: u64 = 1 << 40;

/// The ciphers with the sizes of their keys in bytes.
const CIPHERS: [(&str, usize); 2] = [("AES-256", 64), ("AES-128", 32)];

/// The size of a sector, and the number of bytes in one call.
const SHAPES: [(usize, usize); 6] = [
    (512, 64 << 10),
    (4096, 64 << 10),
    (512, 1 << 20),
    (4096, 1 << 20),
    (512, 512),
    (4096, 4096),
];

const WORK: [&str; 2] = ["encrypt", "decrypt"];

fn main() {
    let compare = std::env::args().any(|argument| argument == "--compare");
    if compare {
        return CIPHERS
            .iter()
            .for_each(|(cipher, key_size)| report(cipher, *key_size));
    }
    let assemblies = Assembly::available().unwrap_or_else(|missing| {
        println!("Linux' assembly is not measured: {missing}\n");
        Vec::new()
    });
    println!("GB/s (of the limit of the same width; of portable; of Linux' of the same width)\n");
    println!("| | kernel | sector | at once | encrypt | decrypt |");
    println!("|---|---|---|---|---|---|");
    for (cipher, key_size) in CIPHERS {
        table(cipher, key_size, &assemblies);
    }
}

// --- turns ---------------------------------------------------------------------------------------

/// A kernel or a limit, and its best turn.
struct Runner {
    turn: Box<dyn FnMut()>,
    bytes: usize,
    best: Duration,
}

impl Runner {
    fn new(bytes: usize, turn: impl FnMut() + 'static) -> Self {
        Self {
            turn: Box::new(turn),
            bytes,
            best: Duration::MAX,
        }
    }

    /// The bare rounds. `None` if the kernel has no limit to compare with.
    fn limit(kernel: Kernel, key_size: usize) -> Option<Self> {
        kernel.rounds_alone(key_size, 0).then(|| {
            Self::new(TURN, move || {
                kernel.rounds_alone(key_size, black_box(TURN));
            })
        })
    }

    /// Calls `crypt` for `len` bytes in sectors of `sector` bytes, as often as a turn has it.
    fn crypt(sector: usize, len: usize, crypt: impl Fn(usize, &mut [u8]) + 'static) -> Self {
        let mut data = vec![0; len];
        let times = (TURN / len).max(1);
        Self::new(times * len, move || {
            for _ in 0..times {
                crypt(sector, &mut data);
            }
            black_box(&mut data);
        })
    }

    /// Runs twice. The first time brings the data into the cache.
    fn take_turn(&mut self) {
        (self.turn)();
        let start = Instant::now();
        (self.turn)();
        self.best = self.best.min(start.elapsed());
    }

    fn gigabytes(&self) -> f64 {
        self.bytes as f64 / self.best.as_secs_f64() / 1e9
    }
}

fn key(key_size: usize) -> Vec<u8> {
    (0..=255).take(key_size).collect()
}

/// What a kernel does with the sectors of one call.
fn ours(kernel: Kernel, key_size: usize, encrypt: bool) -> impl Fn(usize, &mut [u8]) {
    let xts = Xts::new(kernel, &key(key_size)).expect("an available kernel");
    move |sector, data| {
        let first = black_box(u128::from(FIRST));
        let tweaks = Tweaks::new(first, sector as u128 / 512, TweakForm::Plain64);
        let turned = if encrypt {
            xts.encrypt(tweaks, sector, data)
        } else {
            xts.decrypt(tweaks, sector, data)
        };
        turned.expect("whole sectors");
    }
}

/// What Linux' assembly does with them.
fn linux(assembly: Assembly, key_size: usize, encrypt: bool) -> impl Fn(usize, &mut [u8]) {
    let keyed = assembly.keyed(&key(key_size));
    move |sector, data| keyed.crypt(black_box(FIRST), sector, data, encrypt)
}

/// Checks that Linux' assembly does the same work as the kernels.
fn check(assembly: Assembly, key_size: usize) {
    for (sector, len) in SHAPES {
        for encrypt in [true, false] {
            let mut data: Vec<u8> = (0..=255).cycle().take(len).collect();
            let mut same = data.clone();
            ours(assembly.kernel, key_size, encrypt)(sector, &mut data);
            linux(assembly, key_size, encrypt)(sector, &mut same);
            assert!(data == same, "{} differs from the kernel", assembly.name);
        }
    }
}

// --- the table -----------------------------------------------------------------------------------

/// A kernel, or Linux' assembly of the same width.
struct Row {
    name: String,
    kernel: Kernel,
    linux: bool,
    limit: Option<Runner>,
    /// Encryption and decryption of each shape.
    runners: Vec<[Runner; 2]>,
}

impl Row {
    fn ours(kernel: Kernel, key_size: usize) -> Self {
        Self {
            limit: Runner::limit(kernel, key_size),
            ..Self::new(kernel.to_string(), kernel, |encrypt| {
                ours(kernel, key_size, encrypt)
            })
        }
    }

    fn linux(assembly: Assembly, key_size: usize) -> Self {
        check(assembly, key_size);
        let name = format!("linux {}", assembly.name);
        Self {
            linux: true,
            ..Self::new(name, assembly.kernel, |encrypt| {
                linux(assembly, key_size, encrypt)
            })
        }
    }

    fn new<C>(name: String, kernel: Kernel, crypt: impl Fn(bool) -> C) -> Self
    where
        C: Fn(usize, &mut [u8]) + 'static,
    {
        let runners = SHAPES.map(|(sector, len)| {
            [true, false].map(|encrypt| Runner::crypt(sector, len, crypt(encrypt)))
        });
        Self {
            name,
            kernel,
            linux: false,
            limit: None,
            runners: runners.into(),
        }
    }

    fn take_turns(&mut self) {
        self.limit.iter_mut().for_each(Runner::take_turn);
        self.runners
            .as_flattened_mut()
            .iter_mut()
            .for_each(Runner::take_turn);
    }

    fn gigabytes(&self, shape: usize, direction: usize) -> f64 {
        self.runners[shape][direction].gigabytes()
    }
}

fn table(cipher: &str, key_size: usize, assemblies: &[Assembly]) {
    let mut rows = Vec::new();
    for kernel in Kernel::available() {
        rows.push(Row::ours(kernel, key_size));
        let same = assemblies.iter().filter(|other| other.kernel == kernel);
        rows.extend(same.map(|assembly| Row::linux(*assembly, key_size)));
    }
    for _ in 0..ROUNDS {
        rows.iter_mut().for_each(Row::take_turns);
    }
    for row in &rows {
        let name = &row.name;
        if let Some(limit) = &row.limit {
            let limit = limit.gigabytes();
            println!("| {cipher} | {name}: limit | | | {limit:.2} | |");
            record(cipher, &format!("{name}: limit"), limit);
        }
        for (shape, (sector, len)) in SHAPES.iter().enumerate() {
            let [encrypt, decrypt] = [0, 1].map(|direction| cell(&rows, row, shape, direction));
            println!("| {cipher} | {name} | {sector} | {len} | {encrypt} | {decrypt} |");
            for (direction, work) in WORK.iter().enumerate() {
                let what = format!("{cipher}, {len} bytes in sectors of {sector}, {work}");
                record(&what, name, row.gigabytes(shape, direction));
            }
        }
    }
}

/// The speed, and its ratios to what there is to compare with.
fn cell(rows: &[Row], row: &Row, shape: usize, direction: usize) -> String {
    let speed = row.gigabytes(shape, direction);
    let mut ratios = Vec::new();
    let same = || rows.iter().filter(|other| other.kernel == row.kernel);
    ratios.extend(same().find_map(|other| Some(speed / other.limit.as_ref()?.gigabytes())));
    if row.kernel != Kernel::Portable {
        let portable = rows.iter().find(|other| other.kernel == Kernel::Portable);
        ratios.extend(portable.map(|other| speed / other.gigabytes(shape, direction)));
    }
    if !row.linux {
        // The fastest one of Linux.
        let linux = same().filter(|other| other.linux);
        let linux = linux.map(|other| other.gigabytes(shape, direction));
        ratios.extend(linux.reduce(f64::max).map(|other| speed / other));
    }
    let ratios: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    if ratios.is_empty() {
        format!("{speed:.2}")
    } else {
        format!("{speed:.2} ({})", ratios.join("; "))
    }
}

/// Adds the GB/s of a row to the record.
fn record(row: &str, way: &str, value: f64) {
    let Some(path) = std::env::var_os("LUKSMITH_BENCH_RECORD") else {
        return;
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.expect("the file of the record");
    writeln!(
        file,
        "{{\"row\":\"{row}, GB/s\",\"way\":\"{way}\",\"value\":{value:.3}}}"
    )
    .expect("a line of the record");
}

// --- comparing commits ---------------------------------------------------------------------------

/// Prints the GB/s of every kernel and shape as JSON.
fn report(cipher: &str, key_size: usize) {
    let mut runners = Vec::new();
    for kernel in Kernel::available() {
        for (sector, len) in SHAPES {
            for (work, encrypt) in [("encrypt", true), ("decrypt", false)] {
                let row = format!("{cipher}, {kernel}, {len} bytes in sectors of {sector}, {work}");
                let runner = Runner::crypt(sector, len, ours(kernel, key_size, encrypt));
                runners.push((row, runner));
            }
        }
    }
    for _ in 0..COMPARED_ROUNDS {
        runners
            .iter_mut()
            .for_each(|(_, runner)| runner.take_turn());
    }
    for (row, runner) in runners {
        let value = runner.gigabytes();
        println!("{{\"row\":\"{row}, GB/s\",\"value\":{value},\"better\":\"more\"}}");
    }
}
