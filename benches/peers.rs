//! Compares luksmith with cryptsetup and qemu-img at the same work: `cargo bench --bench peers`.
//!
//! Each round does the same work with each program in turn, so that a busy machine slows all of
//! them. The results are the medians of the ratios of the rounds. CPU is user and system time of
//! the whole process, from `/proc/self/stat` (cutime, cstime). Files are in memory (`/dev/shm`), so
//! storage costs the same for all programs. The output is Markdown; dated results are in
//! `benches/record/`.

#![allow(missing_docs, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::bench::{Arguments, Better, children_cpu, cpu_model, median, program, record, report};

const ROUNDS: usize = 5;
const PAYLOAD: u64 = 2 << 30;

fn main() {
    let Some(arguments) = Arguments::read() else {
        return;
    };
    let folder = tempfile::Builder::new()
        .prefix("luksmith-bench-")
        .tempdir_in("/dev/shm")
        .unwrap();
    let files = Files::new(folder.path());
    if arguments.compare {
        return only_luksmith(&files);
    }
    println!(
        "CPU: {}, {} online\n",
        cpu_model(),
        std::thread::available_parallelism().unwrap()
    );
    unlocking(&files);
    copying(&files);
}

struct Files {
    folder: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(folder: &Path) -> Self {
        let key = folder.join("key");
        std::fs::write(&key, "correct horse battery staple").unwrap();
        Self {
            folder: folder.to_owned(),
            key,
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn key(&self) -> String {
        self.key.display().to_string()
    }
}

/// The cost of one command.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
    /// The largest resident set, in MiB.
    memory: u64,
}

/// The keyslots that are unlocked, with the options that make them.
const KEYSLOTS: [(&str, &str); 2] = [
    (
        "argon2id, 1 GiB, t=4, p=4",
        "--pbkdf argon2id --pbkdf-force-iterations 4 --pbkdf-memory 1048576 --pbkdf-parallel 4",
    ),
    (
        "pbkdf2-sha256, 2 million",
        "--pbkdf pbkdf2 --pbkdf-force-iterations 2000000",
    ),
];

/// Makes a small volume with such a keyslot.
fn locked(files: &Files, options: &str) -> String {
    let image = files.path("unlock.img");
    let _ = std::fs::remove_file(&image);
    let mut command = luksmith(&["create", &image, "--size", "1M", "--key-file", &files.key()]);
    run(command.args(options.split(' ')));
    image
}

fn unlock(files: &Files, image: &str) -> Cost {
    run(&mut luksmith(&[
        "key",
        "test",
        image,
        "--key-file",
        &files.key(),
    ]))
}

fn encrypt(files: &Files, kind: &str, plain: &str, image: &str) -> Cost {
    let mut command = luksmith(&["encrypt", plain, image, "--type", kind]);
    command.args(["--key-file", &files.key(), "--pbkdf", "pbkdf2"]);
    run(command.args(["--pbkdf-force-iterations", "1000"]))
}

fn decrypt(files: &Files, image: &str, plain: &str) -> Cost {
    run(&mut luksmith(&[
        "decrypt",
        image,
        plain,
        "--key-file",
        &files.key(),
    ]))
}

/// Nanoseconds of CPU time for each byte of the payload.
fn cpu_per_byte(cost: &Cost) -> f64 {
    cost.cpu.as_secs_f64() * 1e9 / PAYLOAD as f64
}

/// Measures luksmith only, each work once, and reports each result.
fn only_luksmith(files: &Files) {
    for (name, options) in KEYSLOTS {
        let image = locked(files, options);
        let seconds = unlock(files, &image).wall.as_secs_f64();
        report(&format!("unlocking {name}, seconds"), seconds, Better::Less);
    }
    let (plain, image, copy) = (
        files.path("plain.img"),
        files.path("ours.img"),
        files.path("copy.img"),
    );
    fill(&plain);
    for kind in ["luks1", "luks2"] {
        let _ = std::fs::remove_file(&image);
        let costs = [
            ("encrypt", encrypt(files, kind, &plain, &image)),
            ("decrypt", decrypt(files, &image, &copy)),
        ];
        std::fs::remove_file(&copy).unwrap();
        for (work, cost) in costs {
            let cpu = format!("{work} 2 GiB, {kind}, CPU ns a byte");
            report(&cpu, cpu_per_byte(&cost), Better::Less);
            let seconds = cost.wall.as_secs_f64();
            report(
                &format!("{work} 2 GiB, {kind}, seconds"),
                seconds,
                Better::Less,
            );
        }
    }
}

fn unlocking(files: &Files) {
    println!("## Unlocking, wall seconds\n");
    println!("| keyslot | luksmith | cryptsetup | ratio |\n|---|---|---|---|");
    for (name, options) in KEYSLOTS {
        let image = locked(files, options);
        let rounds = (0..ROUNDS).map(|_| {
            let ours = unlock(files, &image);
            let theirs = run(Command::new("cryptsetup").args([
                "open",
                "--test-passphrase",
                "--key-file",
                &files.key(),
                &image,
            ]));
            (ours, theirs)
        });
        let rounds: Vec<(Cost, Cost)> = rounds.collect();
        let seconds = |cost: &Cost| cost.wall.as_secs_f64();
        for (ours, theirs) in &rounds {
            let row = format!("unlock {name}, seconds");
            record(&row, "luksmith", seconds(ours));
            record(&row, "cryptsetup", seconds(theirs));
        }
        row(name, &rounds, seconds);
    }
}

fn row(name: &str, rounds: &[(Cost, Cost)], figure: impl Fn(&Cost) -> f64) {
    let ours = median(rounds.iter().map(|(ours, _)| figure(ours)));
    let theirs = median(rounds.iter().map(|(_, theirs)| figure(theirs)));
    let ratio = median(
        rounds
            .iter()
            .map(|(ours, theirs)| figure(ours) / figure(theirs)),
    );
    println!("| {name} | {ours:.2} | {theirs:.2} | {ratio:.2} |");
}

fn copying(files: &Files) {
    println!("\n## 2 GiB in and out of a volume, CPU nanoseconds a byte (and wall seconds)\n");
    let plain = files.path("plain.img");
    fill(&plain);
    println!(
        "| | luksmith | qemu-img | CPU ratio | cp | luksmith's memory |\n|---|---|---|---|---|---|"
    );
    let secret = format!("secret,id=s,file={}", files.key());
    for (name, kind) in [("LUKS1", "luks1"), ("LUKS2, 4096-byte sectors", "luks2")] {
        let (ours, theirs, copy) = (
            files.path("ours.img"),
            files.path("theirs.img"),
            files.path("copy.img"),
        );
        let mut encrypted = Vec::new();
        let mut decrypted = Vec::new();
        for _ in 0..ROUNDS {
            let _ = std::fs::remove_file(&ours);
            let us = encrypt(files, kind, &plain, &ours);
            let qemu = run_until_it_works(|| {
                let mut command = Command::new("qemu-img");
                command.args([
                    "convert",
                    "--object",
                    &secret,
                    "-O",
                    "luks",
                    "-o",
                    "key-secret=s,iter-time=10",
                    &plain,
                    &theirs,
                ]);
                command
            });
            let cp = run(Command::new("cp").args([&plain, &copy]));
            std::fs::remove_file(&copy).unwrap();
            encrypted.push((us, qemu, cp));
            let us = decrypt(files, &ours, &copy);
            std::fs::remove_file(&copy).unwrap();
            let options = format!("driver=luks,key-secret=s,file.filename={theirs}");
            let qemu = run(Command::new("qemu-img").args([
                "convert",
                "--object",
                &secret,
                "--image-opts",
                &options,
                "-O",
                "raw",
                &copy,
            ]));
            std::fs::remove_file(&copy).unwrap();
            decrypted.push((us, qemu, cp));
        }
        for (direction, rounds) in [("encrypt", &encrypted), ("decrypt", &decrypted)] {
            for (ours, qemu, cp) in rounds {
                for (way, cost) in [("luksmith", ours), ("qemu-img", qemu), ("cp", cp)] {
                    let row = format!("{direction}, {name}");
                    record(&format!("{row}, CPU ns a byte"), way, cpu_per_byte(cost));
                    record(&format!("{row}, seconds"), way, cost.wall.as_secs_f64());
                }
            }
            let show = |of: &dyn Fn(&(Cost, Cost, Cost)) -> Cost| {
                let cpu = median(rounds.iter().map(|round| cpu_per_byte(&of(round))));
                let wall = median(rounds.iter().map(|round| of(round).wall.as_secs_f64()));
                format!("{cpu:.2} ({wall:.2})")
            };
            let ratio = median(
                rounds
                    .iter()
                    .map(|(us, qemu, _)| cpu_per_byte(us) / cpu_per_byte(qemu)),
            );
            let memory = rounds.iter().map(|(us, ..)| us.memory).max().unwrap();
            println!(
                "| {direction}, {name} | {} | {} | {ratio:.2} | {} | {memory} MiB |",
                show(&|round| round.0),
                show(&|round| round.1),
                show(&|round| round.2)
            );
        }
    }
}

fn luksmith(arguments: &[&str]) -> Command {
    let mut command = Command::new(program(env!("CARGO_BIN_EXE_luksmith")));
    command.args(arguments);
    command
}

fn run(command: &mut Command) -> Cost {
    try_run(command).unwrap_or_else(|| panic!("{command:?} failed"))
}

/// Runs `qemu-img` again if it fails. It measures its own KDF, and fails at times ("Unable to get
/// accurate CPU usage").
fn run_until_it_works(command: impl Fn() -> Command) -> Cost {
    (0..20).find_map(|_| try_run(&mut command())).unwrap()
}

fn try_run(command: &mut Command) -> Option<Cost> {
    let cpu_before = children_cpu();
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let status = format!("/proc/{}/status", child.id());
    let mut memory = 0;
    let success = loop {
        if let Some(exit) = child.try_wait().ok()? {
            break exit.success();
        }
        let high_water = std::fs::read_to_string(&status).unwrap_or_default();
        let high_water = high_water
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"));
        let kib =
            high_water.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        memory = memory.max(kib.unwrap_or(0) / 1024);
        std::thread::sleep(Duration::from_millis(2));
    };
    let wall = started.elapsed();
    success.then(|| Cost {
        wall,
        cpu: children_cpu() - cpu_before,
        memory,
    })
}

/// Random bytes, which contain no holes and cannot be compressed.
fn fill(path: &str) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    let mut chunk = vec![0; 1 << 20];
    for _ in 0..PAYLOAD >> 20 {
        luksmith::secret::random(&mut chunk).unwrap();
        file.write_all(&chunk).unwrap();
    }
}
