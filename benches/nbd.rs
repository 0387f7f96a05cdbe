//! Compares `luksmith serve` with nbdkit's file plugin (without encryption) and with qemu-nbd (with
//! LUKS). On an encrypted qcow2 image, it compares `luksmith serve` with qemu-nbd on a copy of that
//! image, and with `luksmith serve` on raw LUKS1.
//!
//! `cargo bench --bench nbd`, or `cargo bench --bench nbd -- random` for the rows that contain a
//! word.
//!
//! The images have 1 GiB and are in memory (`/dev/shm`); the sockets are Unix sockets. fio's nbd
//! engine (libnbd) is pinned to the first processor for every server. In each round every server
//! has a turn. The results are medians over rounds, and medians of the ratios of the rounds. CPU is
//! the server's user and system time from `/proc/PID/stat`. The output is Markdown; dated results
//! are in `benches/record/`.

#![allow(missing_docs, clippy::print_stdout)]

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use luksmith_formats::nbd::{
    ClientFlags, InfoRequest, MetaContextRequest, OptionHeader, OptionReply, OptionReplyHeader,
    OptionType,
};
use support::bench::{Arguments, Better, cpu_model, median, program, record, report};

const SIZE: u64 = 1 << 30;
const ROUNDS: usize = 5;
/// How long fio runs in a round.
const A_WHILE: [&str; 2] = ["--time_based", "--runtime=2"];

/// What fio does, by the name of the row: the pattern, the block size and the queue depth.
const LOADS: [(&str, &str, &str, &str); 6] = [
    ("sequential 1 MiB reads", "read", "1M", "4"),
    ("sequential 1 MiB writes", "write", "1M", "4"),
    ("random 4 KiB reads, depth 1", "randread", "4k", "1"),
    ("random 4 KiB writes, depth 1", "randwrite", "4k", "1"),
    ("random 4 KiB reads, depth 32", "randread", "4k", "32"),
    ("random 4 KiB writes, depth 32", "randwrite", "4k", "32"),
];

fn main() {
    let Some(arguments) = Arguments::read() else {
        return;
    };
    let wanted = |row: &str| arguments.want(row);
    let folder = tempfile::Builder::new()
        .prefix("luksmith-bench-")
        .tempdir_in("/dev/shm")
        .unwrap();
    let files = Files::new(folder.path());
    if arguments.compare {
        return only_luksmith(&files, &wanted);
    }
    println!(
        "CPU: {}, {} online\n",
        cpu_model(),
        std::thread::available_parallelism().unwrap()
    );
    let servers =
        [Kind::Luksmith, Kind::NbdkitFile, Kind::QemuLuks].map(|kind| Server::start(kind, &files));
    println!("| | luksmith | nbdkit file, no crypto | qemu-nbd, LUKS | to nbdkit | to qemu-nbd |");
    println!("|---|---|---|---|---|---|");
    compare("", &servers, &wanted);
    if wanted("connecting") {
        let small = nbdkit_on_a_small_file(&files);
        let rounds: Vec<Vec<Duration>> = (0..ROUNDS)
            .map(|_| {
                let servers = [&servers[0], &small, &servers[2]];
                servers.map(Server::connecting).into()
            })
            .collect();
        row("connecting, µs", &rounds, |time| time.as_secs_f64() * 1e6);
    }
    drop(servers);
    let servers =
        [Kind::Qcow2, Kind::Luks1, Kind::QemuQcow2].map(|kind| Server::start(kind, &files));
    println!(
        "\n| | luksmith, qcow2 | luksmith, LUKS1 | qemu-nbd, qcow2 | to LUKS1 | to qemu-nbd |"
    );
    println!("|---|---|---|---|---|---|");
    compare("qcow2, ", &servers, &wanted);
    drop(servers);
    new_clusters(&files, &wanted);
    if wanted("remote") {
        remote(&files);
    }
}

/// Measures luksmith only, each load once, and reports each result.
fn only_luksmith(files: &Files, wanted: &impl Fn(&str) -> bool) {
    for (name, kind) in [
        ("LUKS2", Kind::Luksmith),
        ("LUKS1", Kind::Luks1),
        ("qcow2", Kind::Qcow2),
    ] {
        let server = Server::start(kind, files);
        for (load, how, block, depth) in LOADS {
            let row = format!("{name}, {load}");
            if !wanted(&row) {
                continue;
            }
            let cost = server.load(how, block, depth, &A_WHILE);
            report(&format!("{row}, MB/s"), cost.rate / 1e6, Better::More);
            let cpu = format!("{row}, server CPU ns a byte");
            report(&cpu, cost.cpu, Better::Less);
        }
        let row = format!("{name}, connecting, µs");
        if wanted(&row) {
            let time = server.connecting().as_secs_f64();
            report(&row, time * 1e6, Better::Less);
        }
    }
    files.empty();
    let row = "qcow2, new clusters, sequential 1 MiB writes, MB/s";
    if wanted(row) {
        let server = Server::start(Kind::Empty, files);
        let cost = server.load("write", "1M", "4", &["--io_size=1g"]);
        report(row, cost.rate / 1e6, Better::More);
    }
}

/// Prints a row for each chosen load. `begin` is put before the names of the rows.
fn compare(begin: &str, servers: &[Server], wanted: &impl Fn(&str) -> bool) {
    for (name, how, block, depth) in LOADS {
        let name = format!("{begin}{name}");
        if !wanted(&name) {
            continue;
        }
        let rounds: Vec<Vec<Cost>> = (0..ROUNDS)
            .map(|_| {
                servers
                    .iter()
                    .map(|server| server.load(how, block, depth, &A_WHILE))
                    .collect()
            })
            .collect();
        if block == "1M" {
            row(&format!("{name}, MB/s"), &rounds, |cost| cost.rate / 1e6);
            row(&format!("{name}, server CPU ns a byte"), &rounds, |cost| {
                cost.cpu
            });
        } else {
            row(&format!("{name}, thousand a second"), &rounds, |cost| {
                cost.rate / 4096e3
            });
            row(&format!("{name}, server CPU µs each"), &rounds, |cost| {
                cost.cpu * 4.096
            });
        }
    }
}

/// Writes to an empty image, so that each write needs a new cluster.
fn new_clusters(files: &Files, wanted: &impl Fn(&str) -> bool) {
    for (name, how, block, depth) in LOADS {
        let name = format!("qcow2, new clusters, {name}");
        if how.ends_with("read") || !wanted(&name) {
            continue;
        }
        // The whole disk once, or a number of small writes of which few are in the same cluster.
        let once = if block == "1M" {
            "--io_size=1g"
        } else {
            "--io_size=16m"
        };
        let rounds: Vec<Vec<Cost>> = (0..ROUNDS)
            .map(|_| {
                files.empty();
                [Kind::Empty, Kind::EmptyLuks1, Kind::QemuEmpty]
                    .into_iter()
                    .map(|kind| Server::start(kind, files).load(how, block, depth, &[once]))
                    .collect()
            })
            .collect();
        row(&format!("{name}, MB/s"), &rounds, |cost| cost.rate / 1e6);
    }
}

/// A row of medians. The ratios are those of the first server to the others.
fn row<T>(name: &str, rounds: &[Vec<T>], figure: impl Fn(&T) -> f64) {
    let second = if name.starts_with("qcow2") {
        "luksmith, LUKS1"
    } else {
        "nbdkit"
    };
    for round in rounds {
        for (cost, way) in round.iter().zip(["luksmith", second, "qemu-nbd"]) {
            record(name, way, figure(cost));
        }
    }
    let of = |n: usize| median(rounds.iter().map(|round| figure(&round[n])));
    let to = |n: usize| {
        median(
            rounds
                .iter()
                .map(|round| figure(&round[0]) / figure(&round[n])),
        )
    };
    let digits = if of(0) < 10.0 { 2 } else { 1 };
    println!(
        "| {name} | {:.digits$} | {:.digits$} | {:.digits$} | {:.2} | {:.2} |",
        of(0),
        of(1),
        of(2),
        to(1),
        to(2)
    );
}

/// The same gigabyte as plain data, as LUKS2, as LUKS1, and as LUKS1 in two qcow2 images.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn new(folder: &Path) -> Self {
        let files = Self {
            folder: folder.to_owned(),
        };
        let mut key = std::fs::OpenOptions::new();
        let mut key = key
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(files.path("key"))
            .unwrap();
        key.write_all(b"correct horse battery staple").unwrap();
        let mut plain = std::fs::File::create(files.path("plain")).unwrap();
        let mut chunk = vec![0; 1 << 20];
        for _ in 0..SIZE >> 20 {
            luksmith::secret::random(&mut chunk).unwrap();
            plain.write_all(&chunk).unwrap();
        }
        for (name, kind) in [
            ("luks2", ["--type", "luks2"]),
            ("luks1", ["--type", "luks1"]),
            ("qcow2", QCOW2),
        ] {
            files.make(&["encrypt", &files.path("plain"), &files.path(name)], kind);
        }
        std::fs::copy(files.path("qcow2"), files.path("qemu-qcow2")).unwrap();
        files
    }

    /// Makes images without any data.
    fn empty(&self) {
        for (name, kind) in [
            ("empty", QCOW2),
            ("qemu-empty", QCOW2),
            ("empty-luks1", ["--type", "luks1"]),
        ] {
            let _ = std::fs::remove_file(self.path(name));
            self.make(
                &["create", &self.path(name), "--size", &SIZE.to_string()],
                kind,
            );
        }
    }

    fn make(&self, arguments: &[&str], kind: [&str; 2]) {
        let made = Command::new(program(env!("CARGO_BIN_EXE_luksmith")))
            .args(arguments)
            .args(kind)
            .args(["--key-file", &self.path("key"), "--pbkdf", "pbkdf2"])
            .args(["--pbkdf-force-iterations", "1000"])
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success());
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

const QCOW2: [&str; 2] = ["--format", "qcow2"];

#[derive(Clone, Copy)]
enum Kind {
    Luksmith,
    NbdkitFile,
    QemuLuks,
    Qcow2,
    Luks1,
    QemuQcow2,
    Empty,
    EmptyLuks1,
    QemuEmpty,
}

/// A server, which runs until it is dropped.
struct Server {
    child: Child,
    socket: String,
}

impl Server {
    fn start(kind: Kind, files: &Files) -> Self {
        let ours = |name: &str, format: &str| {
            Self::run(files, name, |socket| {
                let mut command = luksmith(&files.path(name), &files.path("key"), socket);
                command.args(["--format", format]);
                command
            })
        };
        let qemu = |name: &str, driver: &str| {
            Self::run(files, name, |socket| {
                let mut command = Command::new("qemu-nbd");
                let secret = format!("secret,id=s,file={}", files.path("key"));
                let image = format!("driver={driver}=s,file.filename={}", files.path(name));
                command.args(["-t", "-e", "16", "--object", &secret]);
                command.args(["--image-opts", &image, "-k", socket]);
                command
            })
        };
        let in_qcow2 = "qcow2,encrypt.key-secret";
        match kind {
            Kind::Luksmith => ours("luks2", "raw"),
            Kind::NbdkitFile => Self::run(files, "nbdkit", |socket| {
                nbdkit(&files.path("plain"), socket)
            }),
            Kind::QemuLuks => qemu("luks1", "luks,key-secret"),
            Kind::Qcow2 => ours("qcow2", "qcow2"),
            Kind::Luks1 => ours("luks1", "raw"),
            Kind::QemuQcow2 => qemu("qemu-qcow2", in_qcow2),
            Kind::Empty => ours("empty", "qcow2"),
            Kind::EmptyLuks1 => ours("empty-luks1", "raw"),
            Kind::QemuEmpty => qemu("qemu-empty", in_qcow2),
        }
    }

    fn run(files: &Files, name: &str, command: impl FnOnce(&str) -> Command) -> Self {
        let socket = files.path(&format!("{name}.sock"));
        let mut command = command(&socket);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let started = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "{command:?} does not listen"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, socket }
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket)
    }

    /// Runs fio on the server.
    fn load(&self, how: &str, block: &str, depth: &str, until: &[&str]) -> Cost {
        let before = self.cpu();
        let output = Command::new("taskset")
            .args([
                "-c",
                "0",
                "fio",
                "--name=load",
                "--ioengine=nbd",
                "--output-format=json",
            ])
            .args([format!("--uri={}", self.uri()), format!("--size={SIZE}")])
            .args([
                format!("--rw={how}"),
                format!("--bs={block}"),
                format!("--iodepth={depth}"),
            ])
            .args(until)
            .args(["--randrepeat=1", "--norandommap", "--gtod_reduce=1"])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let cpu = self.cpu().saturating_sub(before);
        let text = String::from_utf8(output.stdout).unwrap();
        let json: serde_json::Value =
            serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
        let side = if how.ends_with("read") {
            "read"
        } else {
            "write"
        };
        let done = &json["jobs"][0][side];
        let bytes = done["io_bytes"].as_f64().unwrap();
        let seconds = done["runtime"].as_f64().unwrap() / 1e3;
        Cost {
            rate: bytes / seconds,
            cpu: cpu.as_secs_f64() * 1e9 / bytes,
        }
    }

    /// The median time from connecting to having the export.
    fn connecting(&self) -> Duration {
        let times = (0..50).map(|_| {
            // Without a pause, the ends of earlier connections would be measured too.
            std::thread::sleep(Duration::from_millis(10));
            let started = Instant::now();
            shake_hands(&self.socket);
            started.elapsed().as_secs_f64()
        });
        Duration::from_secs_f64(median(times))
    }

    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_secs(1) * u32::try_from(ticks).unwrap()
            / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn luksmith(image: &str, key: &str, socket: &str) -> Command {
    let mut command = Command::new(program(env!("CARGO_BIN_EXE_luksmith")));
    command.args([
        "serve",
        image,
        "--key-file",
        key,
        "--socket",
        socket,
        "--socket-mode",
        "600",
    ]);
    command
}

fn nbdkit(file: &str, socket: &str) -> Command {
    let mut command = Command::new("nbdkit");
    command.args(["-f", "-U", socket, "file", file]);
    command
}

/// A small image for measuring connections. On each connection nbdkit looks for the first hole of
/// its file. For a gigabyte on tmpfs that takes ten milliseconds, which would hide everything else.
fn nbdkit_on_a_small_file(files: &Files) -> Server {
    std::fs::write(files.path("small"), [1; 4096]).unwrap();
    Server::run(files, "small", |socket| {
        nbdkit(&files.path("small"), socket)
    })
}

/// The work of a server during a measurement.
struct Cost {
    /// Bytes per second.
    rate: f64,
    /// CPU nanoseconds of the server per byte.
    cpu: f64,
}

/// Compares a volume on a remote server that delays requests by 10 ms with a direct client of that
/// server.
fn remote(files: &Files) {
    let far = Server::run(files, "far", |socket| {
        let mut command = Command::new("nbdkit");
        command.args(["-f", "-U", socket, "-t", "64", "--filter=delay", "file"]);
        command.args([&files.path("luks2"), "rdelay=10ms", "wdelay=10ms"]);
        command
    });
    let near = Server::run(files, "near", |socket| {
        luksmith(&far.uri(), &files.path("key"), socket)
    });
    println!("\n| 10 ms away, depth 32 | luksmith | straight | ratio |\n|---|---|---|---|");
    for (name, how) in [
        ("random 4 KiB reads", "randread"),
        ("random 4 KiB writes", "randwrite"),
    ] {
        let rounds = (0..ROUNDS).map(|_| {
            [&near, &far].map(|server| server.load(how, "4k", "32", &A_WHILE).rate / 4096.0)
        });
        let rounds: Vec<_> = rounds.collect();
        let of = |n: usize| median(rounds.iter().map(|round| round[n]));
        let ratio = median(rounds.iter().map(|[near, far]| near / far));
        println!(
            "| {name}, a second | {:.0} | {:.0} | {ratio:.2} |",
            of(0),
            of(1)
        );
    }
}

/// Connects as libnbd does: structured replies, `base:allocation`, GO.
fn shake_hands(socket: &str) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.read_exact(&mut [0; 18]).unwrap();
    stream.write_all(&ClientFlags::from(3).to_bytes()).unwrap();
    let context = MetaContextRequest {
        export: String::new(),
        queries: vec!["base:allocation".to_owned()],
    };
    for (option, data) in [
        (OptionType::StructuredReply, vec![]),
        (OptionType::SetMetaContext, context.to_bytes()),
        (OptionType::Go, InfoRequest::default().to_bytes()),
    ] {
        let len = data.len().try_into().unwrap();
        let header = OptionHeader { option, len };
        stream
            .write_all(&[&header.to_bytes()[..], &data].concat())
            .unwrap();
        loop {
            let mut header = [0; OptionReplyHeader::LEN];
            stream.read_exact(&mut header).unwrap();
            let header = OptionReplyHeader::parse(&header).unwrap();
            stream
                .read_exact(&mut vec![0; header.len.try_into().unwrap()])
                .unwrap();
            if header.reply == OptionReply::Ack {
                break;
            }
        }
    }
}
