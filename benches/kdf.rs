//! Compares key derivations with the crates, and with the installed programs of libargon2 and
//! OpenSSL: `cargo bench --bench kdf`, or with `-- argon2`, `-- pbkdf2` or `-- splitter` for a
//! part.
//!
//! Each round does the same work with each implementation in turn, so that a busy machine slows all
//! of them. The results are the best times and the medians of the ratios of the rounds. The time
//! that a program takes to start is measured and subtracted. `LUKSMITH_BENCH_OPENSSL` names more
//! OpenSSL programs, separated by colons. The output is Markdown; dated results are in
//! `benches/record/`.

#![allow(missing_docs, clippy::print_stdout)]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use luksmith::Interrupt;
use luksmith::kdf::{Argon2Cost, af, argon2, pbkdf2};
use luksmith_formats::Hash;
use luksmith_formats::luks2::Argon2Variant;
use support::bench::record;

const ROUNDS: usize = 7;
const PASSPHRASE: &str = "benchmark";
const SALT: &str = "0123456789abcdef";

/// An implementation, which returns the time that it took.
struct Way {
    name: String,
    run: Box<dyn Fn() -> Duration>,
    took: Vec<f64>,
}

impl Way {
    fn new(name: &str, work: impl Fn() + 'static) -> Self {
        Self::timed(name, move || time(&work))
    }

    fn timed(name: &str, run: impl Fn() -> Duration + 'static) -> Self {
        Self {
            name: name.to_owned(),
            run: Box::new(run),
            took: Vec::new(),
        }
    }
}

fn main() {
    // `cargo test --benches` runs this with `--test`, which only checks that it compiles.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let part = arguments.iter().find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| part.is_none_or(|part| part == name);
    println!("| work | way | best | median | × ours |\n|---|---|---|---|---|");
    if wanted("argon2") {
        for (memory_kib, passes, lanes) in [(1 << 20, 4, 4), (64 << 10, 3, 1)] {
            beside_argon2(memory_kib, passes, lanes);
        }
    }
    if wanted("pbkdf2") {
        for (hash, len) in [
            (Hash::Sha256, 64),
            (Hash::Sha256, 32),
            (Hash::Sha512, 64),
            (Hash::Sha1, 64),
        ] {
            beside_pbkdf2(hash, len);
        }
    }
    if wanted("splitter") {
        for hash in [Hash::Sha1, Hash::Sha256, Hash::Sha512] {
            let key = [0x5a; 64];
            let material = af::split(&key, 4000, hash).unwrap();
            let merge = move || drop(af::merge(&material, 64, 4000, hash).unwrap());
            let work = format!("merge 4000 stripes, {hash}");
            compare(&work, vec![Way::new("luksmith", merge)]);
        }
    }
}

fn beside_argon2(memory_kib: u32, passes: u32, lanes: u32) {
    let cost = Argon2Cost {
        variant: Argon2Variant::Id,
        passes,
        memory_kib,
        lanes,
    };
    let ours = move || {
        let (passphrase, salt) = (PASSPHRASE.as_bytes(), SALT.as_bytes());
        drop(argon2(cost, passphrase, salt, 64, &Interrupt::new()).unwrap());
    };
    let crates = move || {
        let params = argon2::Params::new(memory_kib, passes, lanes, None).unwrap();
        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
            .hash_password_into(PASSPHRASE.as_bytes(), SALT.as_bytes(), &mut [0; 64])
            .unwrap();
    };
    let program = move |memory_kib: u32, passes: u32| {
        let numbers = [passes, memory_kib, lanes].map(|number| number.to_string());
        let [t, k, p] = numbers.each_ref().map(String::as_str);
        let arguments = [SALT, "-id", "-t", t, "-k", k, "-p", p, "-l", "64", "-r"];
        run("argon2", &arguments, PASSPHRASE)
    };
    let mut ways = vec![
        Way::new("luksmith", ours),
        Way::new("argon2 crate, its own memory", crates),
    ];
    if program(8 * lanes, 1) {
        ways.push(Way::timed("libargon2", move || {
            beyond_start(|| program(memory_kib, passes), || program(8 * lanes, 1))
        }));
    }
    let mib = memory_kib >> 10;
    compare(&format!("argon2id {mib} MiB t={passes} p={lanes}"), ways);
}

fn beside_pbkdf2(hash: Hash, len: usize) {
    const ITERATIONS: u32 = 500_000;
    let mut ways = vec![
        Way::new("luksmith", move || {
            let (passphrase, salt) = (PASSPHRASE.as_bytes(), SALT.as_bytes());
            let mut out = vec![0; len];
            pbkdf2(
                hash,
                passphrase,
                salt,
                ITERATIONS,
                &mut out,
                &Interrupt::new(),
            )
            .unwrap();
        }),
        Way::new("pbkdf2 crate", move || {
            let of_the_crate = match hash {
                Hash::Sha1 => pbkdf2::pbkdf2_hmac::<sha1::Sha1>,
                Hash::Sha512 => pbkdf2::pbkdf2_hmac::<sha2::Sha512>,
                _ => pbkdf2::pbkdf2_hmac::<sha2::Sha256>,
            };
            let (passphrase, salt) = (PASSPHRASE.as_bytes(), SALT.as_bytes());
            of_the_crate(passphrase, salt, ITERATIONS, &mut vec![0; len]);
        }),
    ];
    let more = std::env::var("LUKSMITH_BENCH_OPENSSL").unwrap_or_default();
    for openssl in std::iter::once("openssl").chain(more.split(':').filter(|path| !path.is_empty()))
    {
        let Some(version) = version(openssl) else {
            continue;
        };
        let openssl = openssl.to_owned();
        ways.push(Way::timed(&version, move || {
            let derive = |iterations: u32| {
                let options = [
                    format!("digest:{hash}"),
                    format!("pass:{PASSPHRASE}"),
                    format!("salt:{SALT}"),
                    format!("iter:{iterations}"),
                ];
                let mut arguments = vec!["kdf".to_owned(), "-keylen".to_owned(), len.to_string()];
                for option in options {
                    arguments.extend(["-kdfopt".to_owned(), option]);
                }
                arguments.push("PBKDF2".to_owned());
                run(&openssl, &arguments, "")
            };
            beyond_start(|| derive(ITERATIONS), || derive(1))
        }));
    }
    compare(
        &format!("pbkdf2-{hash}, {len} bytes, {ITERATIONS} iterations"),
        ways,
    );
}

/// The version, such as "OpenSSL 3.0.22", if the program runs.
fn version(openssl: &str) -> Option<String> {
    let told = Command::new(openssl).arg("version").output().ok()?;
    let told = String::from_utf8(told.stdout).ok()?;
    Some(
        told.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" "),
    )
}

/// Whether the program ran and succeeded.
fn run<S: AsRef<std::ffi::OsStr>>(program: &str, arguments: &[S], input: &str) -> bool {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else {
        return false;
    };
    let fed = child.stdin.take().unwrap().write_all(input.as_bytes());
    fed.is_ok() && child.wait().unwrap().success()
}

/// The time of the work, without the start of its program.
fn beyond_start(work: impl Fn() -> bool, start: impl Fn() -> bool) -> Duration {
    let start = time(|| assert!(start()));
    time(|| assert!(work())).saturating_sub(start)
}

fn time(work: impl Fn()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn compare(work: &str, mut ways: Vec<Way>) {
    for _ in 0..ROUNDS {
        for way in &mut ways {
            // Twice, and the second time counts: a virtual machine may first have to get memory
            // from its host.
            (way.run)();
            let took = (way.run)().as_secs_f64();
            record(&format!("{work}, seconds"), &way.name, took);
            way.took.push(took);
        }
    }
    let ours = ways[0].took.clone();
    for way in &ways {
        let ratios = way
            .took
            .iter()
            .zip(&ours)
            .map(|(theirs, ours)| theirs / ours);
        println!(
            "| {work} | {} | {} | {} | {:.2} |",
            way.name,
            milliseconds(way.took.iter().copied().fold(f64::INFINITY, f64::min)),
            milliseconds(median(way.took.iter().copied())),
            median(ratios),
        );
    }
}

fn milliseconds(seconds: f64) -> String {
    let milliseconds = seconds * 1e3;
    let digits = if milliseconds < 10.0 { 3 } else { 1 };
    format!("{milliseconds:.digits$} ms")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
