//! What tags cost: `cargo bench --bench trust`, or `cargo bench --bench trust -- read` for the rows
//! that contain a word.
//!
//! A volume is served without its tags, with them, and with `--tags-relaxed`, in turns, and fio is
//! the client. The storage is a file on the disk of `target`, and an export of nbdkit that answers
//! after a millisecond, as a server in the network does; the tags are on the same disk. Each row is
//! the median of the rounds. The output is Markdown; dated results are in `benches/record/`.
//! `--quick` measures one round with little data.

#![allow(missing_docs, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::bench::{Arguments, Better, cpu_model, median, program, record, report};

const CHEAP: &str = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";

/// How much is measured.
#[derive(Clone, Copy)]
struct Extent {
    rounds: usize,
    /// The size of the volume in MiB.
    size: u64,
    /// How many milliseconds a client runs.
    time: u64,
}

const WHOLE: Extent = Extent {
    rounds: 3,
    size: 1024,
    time: 800,
};
const QUICK: Extent = Extent {
    rounds: 1,
    size: 64,
    time: 300,
};

/// A kind of request: its name for fio, its size, and its name for people.
const KINDS: [(&str, &str, &str); 4] = [
    ("write", "64k", "sequential 64 KiB writes"),
    ("randwrite", "4k", "random 4 KiB writes"),
    ("read", "64k", "sequential 64 KiB reads"),
    ("randread", "4k", "random 4 KiB reads"),
];
const DEPTHS: [u32; 3] = [1, 8, 32];

struct Bench {
    folder: PathBuf,
    extent: Extent,
}

/// A server, killed at the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let Some(arguments) = Arguments::read() else {
        return;
    };
    let extent = if arguments.quick { QUICK } else { WHOLE };
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = tempfile::Builder::new()
        .prefix("luksmith-bench-")
        .tempdir_in(parent)
        .unwrap();
    let bench = Bench {
        folder: folder.path().to_owned(),
        extent,
    };
    fs::write(bench.folder.join("key"), "correct horse battery staple").unwrap();
    let image = bench.path("disk.img");
    let size = format!("{}M", extent.size);
    bench.run(&format!(
        "create {image} --size {size} --key-file key {CHEAP}"
    ));
    // Every block has content.
    bench.serve(&image, &[], "write", "1M", 4);
    let socket = bench.path("nbdkit.sock");
    let nbdkit = Command::new("nbdkit")
        .args([
            "-f",
            "-U",
            &socket,
            "--filter=delay",
            "file",
            &image,
            "delay-read=1ms",
        ])
        .args(["delay-write=1ms"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let nbdkit = nbdkit.ok().map(Running);
    let remote = format!("nbd+unix:///?socket={socket}");
    let mut storages = vec![("file", image)];
    if nbdkit.is_some() {
        wait_for(&socket);
        storages.push(("remote", remote));
    }
    println!("CPU: {}\n", cpu_model());
    println!("| | without tags | with tags | ratio | relaxed | ratio |\n|---|---|---|---|---|---|");
    for (name, storage) in &storages {
        let trust = bench.path(&format!("trust-{name}"));
        bench.run(&format!(
            "trust init {storage} --trust {trust} --tags --key-file key"
        ));
        let ways: [(&str, &[&str]); 3] = [
            ("without tags", &[]),
            ("with tags", &["--trust", &trust]),
            ("relaxed", &["--trust", &trust, "--tags-relaxed"]),
        ];
        for (kind, size, words) in KINDS {
            for depth in DEPTHS {
                let row = format!("{name}, {words}, depth {depth}");
                if !arguments.want(&row) {
                    continue;
                }
                let mut rates = [(); 3].map(|()| Vec::new());
                for _ in 0..extent.rounds {
                    for ((way, options), rates) in ways.iter().zip(&mut rates) {
                        if arguments.compare && options.is_empty() {
                            continue;
                        }
                        let rate = bench.serve(storage, options, kind, size, depth);
                        record(&row, way, rate);
                        rates.push(rate);
                    }
                }
                if arguments.compare {
                    report(&row, median(rates[1].iter().copied()), Better::More);
                    continue;
                }
                let [without, with, relaxed] = rates.map(|rates| median(rates.into_iter()));
                println!(
                    "| {row} | {without:.0} | {with:.0} | {:.2} | {relaxed:.0} | {:.2} |",
                    with / without,
                    relaxed / without
                );
            }
        }
    }
}

fn wait_for(socket: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    while !Path::new(socket).exists() {
        assert!(Instant::now() < until, "nbdkit does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Bench {
    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn luksmith(&self, line: &str) -> Command {
        let mut command = Command::new(program(env!("CARGO_BIN_EXE_luksmith")));
        command.current_dir(&self.folder).args(line.split(' '));
        command
    }

    fn run(&self, line: &str) {
        let output = self.luksmith(line).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {error}");
    }

    /// Serves a volume to fio, and returns its requests a second. What is written without tags goes
    /// to the second half of the volume, which nothing reads with tags: it would be errors there.
    fn serve(&self, image: &str, options: &[&str], kind: &str, size: &str, depth: u32) -> f64 {
        let half = self.extent.size / 2;
        let is_apart = options.is_empty() && kind.contains("write");
        let (offset, extent) = match (size, is_apart) {
            ("1M", _) => (0, self.extent.size),
            (_, true) => (half, half),
            (_, false) => (0, half),
        };
        let time = match size {
            "1M" => String::new(),
            _ => format!("--time_based --runtime={}ms", self.extent.time),
        };
        let json = self.path("fio.json");
        let fio = format!(
            "fio --name=x --ioengine=nbd --uri=\"$uri\" --rw={kind} --bs={size} --iodepth={depth} \
             --offset={offset}M --size={extent}M {time} --output-format=json --output={json}"
        );
        let mut command = self.luksmith(&format!("serve {image} --key-file key"));
        let served = command.args(options).arg("--run").arg(fio);
        let served = served.output().unwrap();
        let error = String::from_utf8_lossy(&served.stderr);
        assert!(served.status.success(), "{error}");
        let text = fs::read_to_string(&json).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        let job = &parsed["jobs"][0];
        assert_eq!(job["error"], 0, "{text}");
        let of = |way: &str| job[way]["iops"].as_f64().unwrap_or(0.0);
        of("read") + of("write")
    }
}
