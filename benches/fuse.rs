//! Compares `luksmith mount` with nbdfuse over `luksmith serve`, on the same volume.
//!
//! `cargo bench --bench fuse`, or `cargo bench --bench fuse -- random` for the rows that contain a
//! word.
//!
//! The image has 512 MiB and is in memory (`/dev/shm`). The client is fio with direct I/O, so that
//! each of its requests reaches the file system; several jobs are several requests in flight. In
//! each round both ways have a turn. The results are medians over rounds, and medians of the ratios
//! of the rounds. CPU is the user and system time of the processes that serve the file, from
//! `/proc/PID/stat`. The output is Markdown.

#![allow(missing_docs, clippy::print_stdout)]

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::bench::{Arguments, Better, cpu_model, median, program, record, report};

const SIZE: u64 = 512 << 20;
const ROUNDS: usize = 3;
/// How long fio runs in a round, in seconds.
const SECONDS: u32 = 1;

/// What fio does: the name of the row, its pattern, the block size, and the number of jobs.
const LOADS: [(&str, &str, u32, u32); 8] = [
    ("sequential 1 MiB reads", "read", 1 << 20, 1),
    ("sequential 1 MiB writes", "write", 1 << 20, 1),
    ("sequential 1 MiB reads, 4 jobs", "read", 1 << 20, 4),
    ("sequential 1 MiB writes, 4 jobs", "write", 1 << 20, 4),
    ("random 4 KiB reads", "randread", 4096, 1),
    ("random 4 KiB writes", "randwrite", 4096, 1),
    ("random 4 KiB reads, 8 jobs", "randread", 4096, 8),
    ("random 4 KiB writes, 8 jobs", "randwrite", 4096, 8),
];

const WAYS: [&str; 2] = ["luksmith mount", "nbdfuse"];

fn main() {
    let Some(arguments) = Arguments::read() else {
        return;
    };
    let mut folder = tempfile::Builder::new();
    let folder = folder
        .prefix("luksmith-bench-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in("/dev/shm")
        .unwrap();
    make_image(folder.path());
    let ways = if arguments.compare { 1 } else { WAYS.len() };
    if !arguments.compare {
        let processors = std::thread::available_parallelism().unwrap();
        println!("CPU: {}, {processors} online\n", cpu_model());
        println!("| | {} | ratio |", WAYS.join(" | "));
        println!("|---|---|---|---|");
    }
    for (name, pattern, block, jobs) in LOADS {
        if !arguments.want(name) {
            continue;
        }
        let rounds: Vec<Vec<Cost>> = (0..if arguments.compare { 1 } else { ROUNDS })
            .map(|_| {
                // Only one of them can have the volume open.
                let load = |way| Mounted::start(way, folder.path()).load(pattern, block, jobs);
                (0..ways).map(load).collect()
            })
            .collect();
        let (rate, cpu, per, of_cpu) = match block {
            4096 => ("thousand a second", "CPU µs each", 4096e3, 4.096),
            _ => ("MiB/s", "CPU ns a byte", f64::from(1 << 20), 1.0),
        };
        let (rate, cpu) = (format!("{name}, {rate}"), format!("{name}, {cpu}"));
        if arguments.compare {
            report(&rate, rounds[0][0].rate / per, Better::More);
            report(&cpu, rounds[0][0].cpu * of_cpu, Better::Less);
            continue;
        }
        row(&rate, &rounds, |cost| cost.rate / per);
        row(&cpu, &rounds, |cost| cost.cpu * of_cpu);
    }
}

/// A row of medians. The ratio is that of the first way to the other one.
fn row(name: &str, rounds: &[Vec<Cost>], figure: impl Fn(&Cost) -> f64) {
    for round in rounds {
        for (cost, way) in round.iter().zip(WAYS) {
            record(name, way, figure(cost));
        }
    }
    let of = |n: usize| median(rounds.iter().map(|round| figure(&round[n])));
    let ratio = median((rounds.iter()).map(|round| figure(&round[0]) / figure(&round[1])));
    let digits = if of(0) < 10.0 { 2 } else { 1 };
    let [ours, other] = [of(0), of(1)];
    println!("| {name} | {ours:.digits$} | {other:.digits$} | {ratio:.2} |");
}

fn make_image(folder: &Path) {
    let mut key = std::fs::OpenOptions::new();
    let key = key.write(true).create_new(true).mode(0o600);
    let mut key = key.open(folder.join("key")).unwrap();
    key.write_all(b"correct horse battery staple").unwrap();
    let mut plain = std::fs::File::create(folder.join("plain")).unwrap();
    let mut chunk = vec![0; 1 << 20];
    for _ in 0..SIZE >> 20 {
        luksmith::secret::random(&mut chunk).unwrap();
        plain.write_all(&chunk).unwrap();
    }
    let made = Command::new(program(env!("CARGO_BIN_EXE_luksmith")))
        .current_dir(folder)
        .args(["encrypt", "plain", "disk.img", "--key-file", "key"])
        .args(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"])
        .stdout(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    std::fs::remove_file(folder.join("plain")).unwrap();
}

/// What a load cost: bytes a second, and nanoseconds of the servers for each byte.
struct Cost {
    rate: f64,
    cpu: f64,
}

/// The volume as a file. It is unmounted when this is dropped.
struct Mounted {
    file: PathBuf,
    servers: Vec<Child>,
}

impl Mounted {
    fn start(way: usize, folder: &Path) -> Self {
        let luksmith = |command: &str, option: &str, path: &Path| {
            let mut program = Command::new(program(env!("CARGO_BIN_EXE_luksmith")));
            program.args([command, "disk.img", "--key-file", "key", option]);
            program.arg(path).current_dir(folder).stderr(Stdio::null());
            program.spawn().unwrap()
        };
        let file = folder.join(format!("file-{way}"));
        std::fs::File::create(&file).unwrap();
        let mut servers = Vec::new();
        if way == 0 {
            servers.push(luksmith("mount", "--", &file));
        } else {
            let socket = folder.join("socket");
            servers.push(luksmith("serve", "--socket", &socket));
            until(|| socket.exists());
            let uri = format!("nbd+unix:///?socket={}", socket.display());
            let mut nbdfuse = Command::new("nbdfuse");
            nbdfuse
                .arg(&file)
                .arg(uri)
                .stdin(Stdio::null())
                .stderr(Stdio::null());
            servers.push(nbdfuse.spawn().unwrap());
        }
        until(|| std::fs::metadata(&file).is_ok_and(|about| about.size() == SIZE));
        Self { file, servers }
    }

    /// User and system time.
    fn cpu_time(&self) -> f64 {
        let of = |server: &Child| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.id())).unwrap();
            let (_, fields) = stat.rsplit_once(')').unwrap();
            let ticks = fields.split_whitespace().skip(11).take(2);
            ticks
                .map(|field| field.parse::<u64>().unwrap())
                .sum::<u64>()
        };
        let ticks: u64 = self.servers.iter().map(of).sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    fn load(&self, pattern: &str, block: u32, jobs: u32) -> Cost {
        let before = self.cpu_time();
        let mut fio = Command::new("fio");
        fio.arg(format!("--filename={}", self.file.display()));
        fio.arg(format!("--rw={pattern}"))
            .arg(format!("--bs={block}"));
        fio.arg(format!("--numjobs={jobs}"))
            .arg(format!("--runtime={SECONDS}"));
        fio.arg(format!("--size={SIZE}"));
        fio.args([
            "--name=load",
            "--ioengine=psync",
            "--direct=1",
            "--time_based",
            "--thread",
        ]);
        fio.args([
            "--overwrite=1",
            "--allow_file_create=0",
            "--group_reporting",
        ]);
        fio.args(["--randrepeat=1", "--norandommap", "--output-format=json"]);
        let ran = fio.output().unwrap();
        assert!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        let cpu = self.cpu_time() - before;
        let told: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
        let side = if pattern.ends_with("read") {
            "read"
        } else {
            "write"
        };
        let told = &told["jobs"][0][side];
        let bytes = told["io_bytes"].as_f64().unwrap();
        Cost {
            rate: bytes / (told["runtime"].as_f64().unwrap() / 1e3),
            cpu: cpu * 1e9 / bytes,
        }
    }
}

fn until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.file).status();
        for server in self.servers.iter_mut().rev() {
            if self.file.is_file() && server.try_wait().is_ok_and(|ended| ended.is_none()) {
                let pid = rustix::process::Pid::from_child(server);
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let _ = server.wait();
        }
    }
}
