//! Compares AES-XTS of luksmith with other libraries, on one thread.
//!
//! `cd benches/libraries && cargo build --release`, then `taskset -c 1
//! target/release/luksmith-beside-libraries`. In each round every implementation has a turn. It
//! prints the best speed, and the median over the rounds of the speed of the first kernel relative
//! to this implementation. `LUKSMITH_BENCH_RECORD` names a file to which it adds the time of every
//! turn, as a line of JSON.

mod evp;
mod others;

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use luksmith::xts::{Kernel, TweakForm, Tweaks, Xts};

/// Encrypts sectors of a given size in place, numbered from 0.
type Encrypt = Box<dyn FnMut(usize, &mut [u8])>;

/// The alignment of the buffers, which is that of sectors in the program.
const PAGE: usize = 4096;

struct Shape {
    sector: usize,
    len: usize,
    rounds: usize,
}

struct Runner {
    name: String,
    encrypt: Encrypt,
    times: Vec<Duration>,
}

fn kernel(kernel: Kernel, key: &[u8]) -> Encrypt {
    let xts = Xts::new(kernel, key).expect("available");
    Box::new(move |sector, data| {
        let tweaks = Tweaks::new(0, 1, TweakForm::Plain64);
        xts.encrypt(tweaks, sector, data).expect("whole sectors");
    })
}

fn runners(key: &[u8]) -> Vec<Runner> {
    let mut all: Vec<(String, Encrypt)> = Vec::new();
    for each in Kernel::available() {
        all.push((each.to_string(), kernel(each, key)));
    }
    all.push(("OpenSSL 4 (built here)".into(), evp::openssl4(key)));
    all.extend(evp::aws_lc(key).map(|it| ("AWS-LC".into(), it)));
    all.extend(evp::installed_openssl(key).map(|it| ("OpenSSL, installed".into(), it)));
    all.extend(others::libgcrypt(key).map(|it| ("libgcrypt, installed".into(), it)));
    all.extend(others::nettle(key).map(|it| ("nettle, installed".into(), it)));
    let runner = |(name, encrypt)| Runner {
        name,
        encrypt,
        times: Vec::new(),
    };
    all.into_iter().map(runner).collect()
}

/// Checks that all implementations give the same bytes, before anything is measured.
fn agree(runners: &mut [Runner]) {
    let mut expected = None;
    for runner in runners {
        let mut data: Vec<u8> = (0..8192).map(|n: usize| n.to_le_bytes()[0]).collect();
        (runner.encrypt)(512, &mut data);
        let expected = expected.get_or_insert_with(|| data.clone());
        assert!(*expected == data, "{} encrypts otherwise", runner.name);
    }
}

fn measure(cipher: &str, runners: &mut [Runner], shape: &Shape) {
    let mut memory = vec![0; shape.len + PAGE];
    let begin = memory.as_ptr().align_offset(PAGE);
    let data = &mut memory[begin..][..shape.len];
    let times = ((1 << 19) / shape.len).max(1);
    for runner in &mut *runners {
        runner.times.clear();
    }
    for _ in 0..shape.rounds {
        for runner in &mut *runners {
            if shape.len <= 1 << 20 {
                (runner.encrypt)(shape.sector, data); // into the cache
            }
            let start = Instant::now();
            for _ in 0..times {
                (runner.encrypt)(shape.sector, black_box(&mut *data));
            }
            let time = start.elapsed();
            record(cipher, shape, &runner.name, time);
            runner.times.push(time);
        }
    }
    let bytes = (times * shape.len) as f64;
    let first = runners[0].times.clone();
    for runner in &*runners {
        let best = runner.times.iter().min().expect("some rounds");
        let mut ratios: Vec<f64> = runner
            .times
            .iter()
            .zip(&first)
            .map(|(time, first)| time.as_secs_f64() / first.as_secs_f64())
            .collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "| {} | {} | {} | {:.2} | {:.2} |",
            runner.name,
            shape.sector,
            shape.len,
            bytes / best.as_secs_f64() / 1e9,
            ratios[ratios.len() / 2],
        );
    }
}

fn record(cipher: &str, shape: &Shape, name: &str, time: Duration) {
    let Some(path) = std::env::var_os("LUKSMITH_BENCH_RECORD") else {
        return;
    };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let Shape { sector, len, .. } = shape;
    writeln!(
        file.expect("the file of the record"),
        r#"{{"row":"{cipher}, {len} bytes in sectors of {sector}, seconds","way":"{name}","value":{}}}"#,
        time.as_secs_f64()
    )
    .expect("the file of the record");
}

fn main() {
    let few = std::env::args()
        .nth(1)
        .and_then(|rounds| rounds.parse().ok());
    let rounds = few.unwrap_or(60);
    for (cipher, key_size) in [("AES-256", 64), ("AES-128", 32)] {
        let key: Vec<u8> = (1..=255).take(key_size).collect();
        let mut runners = runners(&key);
        agree(&mut runners);
        println!("{cipher}\n");
        println!(
            "| | sector | at once | best, GB/s | the first kernel's speed, times this one's |"
        );
        println!("|---|---|---|---|---|");
        for (sector, len) in [
            (512, 64 << 10),
            (4096, 64 << 10),
            (512, 1 << 20),
            (4096, 1 << 20),
            (512, 512),
            (4096, 4096),
        ] {
            let shape = Shape {
                sector,
                len,
                rounds,
            };
            measure(cipher, &mut runners, &shape);
        }
        // Without nettle, which takes most of a second for this.
        runners.retain(|runner| !runner.name.starts_with("nettle"));
        for sector in [512, 4096] {
            let shape = Shape {
                sector,
                len: 256 << 20,
                rounds: 3,
            };
            measure(cipher, &mut runners, &shape);
        }
        println!();
    }
}
