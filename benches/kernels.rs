//! Compares the kernels of AES-XTS with each other, and with the bare rounds of AES at the same
//! width. It prints a table for `benches/record`.
//!
//! `taskset -c 1 cargo bench --bench kernels`. In each round every kernel has a turn. The best turn
//! counts, since other work on the machine can only slow a turn down.
//!
//! With `--compare` there are fewer rounds, and the output is a line of JSON for each kernel and
//! each shape (sector size and length). `benches/compare` builds this file for older commits too,
//! so it uses no other package.

#![allow(clippy::print_stdout)] // the table is its purpose

use std::hint::black_box;
use std::time::{Duration, Instant};

use luksmith::xts::{Kernel, TweakForm, Tweaks, Xts};

/// The minimum size of a turn, so that reading the clock does not matter.
const TURN: usize = 1 << 20;
const ROUNDS: usize = 300;
const COMPARED_ROUNDS: usize = 40;

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

    fn kernel(kernel: Kernel, key_size: usize, sector: usize, len: usize, encrypt: bool) -> Self {
        let key: Vec<u8> = (0..=255).take(key_size).collect();
        let xts = Xts::new(kernel, &key).expect("an available kernel");
        let mut data = vec![0; len];
        let times = (TURN / len).max(1);
        Self::new(times * len, move || {
            for _ in 0..times {
                let first = black_box(1 << 40);
                let tweaks = Tweaks::new(first, sector as u128 / 512, TweakForm::Plain64);
                let turned = if encrypt {
                    xts.encrypt(tweaks, sector, &mut data)
                } else {
                    xts.decrypt(tweaks, sector, &mut data)
                };
                turned.expect("whole sectors");
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

fn main() {
    let compare = std::env::args().any(|argument| argument == "--compare");
    if compare {
        return CIPHERS
            .iter()
            .for_each(|(cipher, key)| report(cipher, *key));
    }
    println!("GB/s (of the kernel's own limit; of portable)\n");
    println!("| | kernel | sector | at once | encrypt | decrypt |");
    println!("|---|---|---|---|---|---|");
    for (cipher, key_size) in CIPHERS {
        table(cipher, key_size);
    }
}

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

/// Prints the GB/s of every kernel and shape as JSON.
fn report(cipher: &str, key_size: usize) {
    let mut runners = Vec::new();
    for kernel in Kernel::available() {
        for (sector, len) in SHAPES {
            for (work, encrypt) in [("encrypt", true), ("decrypt", false)] {
                let row = format!("{cipher}, {kernel}, {len} bytes in sectors of {sector}, {work}");
                let runner = Runner::kernel(kernel, key_size, sector, len, encrypt);
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

fn table(cipher: &str, key_size: usize) {
    let kernels = Kernel::available();
    let mut limits: Vec<_> = kernels
        .iter()
        .map(|kernel| Runner::limit(*kernel, key_size))
        .collect();
    let mut runners = Vec::new();
    for &kernel in &kernels {
        for (sector, len) in SHAPES {
            for encrypt in [true, false] {
                runners.push(Runner::kernel(kernel, key_size, sector, len, encrypt));
            }
        }
    }
    for _ in 0..ROUNDS {
        limits.iter_mut().flatten().for_each(Runner::take_turn);
        runners.iter_mut().for_each(Runner::take_turn);
    }

    let portable = kernels
        .iter()
        .position(|kernel| *kernel == Kernel::Portable)
        .expect("always available");
    let each = 2 * SHAPES.len();
    for (n, kernel) in kernels.iter().enumerate() {
        if let Some(limit) = &limits[n] {
            println!(
                "| {cipher} | {kernel}: limit | | | {:.2} | |",
                limit.gigabytes()
            );
        }
        for (m, (sector, len)) in SHAPES.iter().enumerate() {
            let cell = |direction: usize| {
                let speed = runners[n * each + 2 * m + direction].gigabytes();
                let oracle = runners[portable * each + 2 * m + direction].gigabytes();
                let of_limit = limits[n].as_ref().map(|limit| speed / limit.gigabytes());
                match of_limit {
                    Some(of_limit) => format!("{speed:.2} ({of_limit:.2}; {:.2})", speed / oracle),
                    None => format!("{speed:.2}"),
                }
            };
            println!(
                "| {cipher} | {kernel} | {sector} | {len} | {} | {} |",
                cell(0),
                cell(1)
            );
        }
    }
}
