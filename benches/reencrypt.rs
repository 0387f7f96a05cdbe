//! Compares `luksmith reencrypt` with cryptsetup's offline reencryption, and measures how long the
//! requests of a client take beside one: `cargo bench --bench reencrypt`, or `cargo bench --bench
//! reencrypt -- journal` for the rows that contain a word.
//!
//! Each round reencrypts a volume of 1 GiB with each program in turn, so that a busy machine slows
//! both of them. Ratios are medians of those of the rounds. CPU is user and system time of the
//! whole process. Files are in memory (`/dev/shm`), so storage costs the same for both. The client
//! is fio with one request of 4 KiB in flight, which reads and writes at random for some seconds.
//! The last column says how much was converted in them. The output is Markdown; dated results are
//! in `benches/record/`. `--quick` measures one round with 64 MiB.

#![allow(missing_docs, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::bench::{Arguments, Better, children_cpu, cpu_model, median, program, record, report};

/// How much is measured.
#[derive(Clone, Copy)]
struct Extent {
    rounds: usize,
    /// The size of a volume in MiB.
    size: u64,
    /// How many seconds the client of a reencryption runs.
    client: u64,
}

const WHOLE: Extent = Extent {
    rounds: 9,
    size: 1024,
    client: 3,
};
const QUICK: Extent = Extent {
    rounds: 1,
    size: 64,
    client: 1,
};
const RESILIENCES: [&str; 2] = ["checksum", "journal"];
const CHEAP: &str = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";

fn main() {
    let Some(arguments) = Arguments::read() else {
        return;
    };
    let folder = tempfile::Builder::new()
        .prefix("luksmith-bench-")
        .tempdir_in("/dev/shm")
        .unwrap();
    let extent = if arguments.quick { QUICK } else { WHOLE };
    let files = Files::new(folder.path(), extent);
    if arguments.compare {
        let image = files.volume("ours.img");
        for how in RESILIENCES {
            let cost = ours(&files, &image, how);
            report(&format!("{how}, CPU ns a byte"), cost.cpu, Better::Less);
            report(&format!("{how}, seconds"), cost.wall, Better::Less);
        }
        return;
    }
    let processors = std::thread::available_parallelism().unwrap();
    println!("CPU: {}, {processors} online\n", cpu_model());
    pairs(&files, &arguments);
    beside_a_client(&files, &arguments);
}

struct Files {
    folder: PathBuf,
    key: String,
    extent: Extent,
}

impl Files {
    fn new(folder: &Path, extent: Extent) -> Self {
        let key = folder.join("key");
        std::fs::write(&key, "correct horse battery staple").unwrap();
        Self {
            folder: folder.to_owned(),
            key: key.display().to_string(),
            extent,
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// A volume whose every byte is on the storage.
    fn volume(&self, name: &str) -> String {
        let image = self.path(name);
        let size = format!("{}M", self.extent.size);
        let mut create = luksmith(&["create", &image, "--size", &size, "--key-file", &self.key]);
        self.run(create.args(CHEAP.split(' ')));
        let mut served = luksmith(&["serve", &image, "--key-file", &self.key, "--run"]);
        let fill = format!(
            "fio --name=fill --ioengine=nbd --uri=\"$uri\" --rw=write --bs=1M --size={size}"
        );
        self.run(served.arg(fill));
        image
    }

    fn run(&self, command: &mut Command) -> Cost {
        let before = children_cpu();
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = child.stderr(Stdio::null()).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let mut memory = 0;
        let exit = loop {
            if let Some(exit) = child.try_wait().unwrap() {
                break exit;
            }
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            let high_water = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib =
                high_water.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok());
            memory = memory.max(kib.unwrap_or(0_u32));
            std::thread::sleep(Duration::from_millis(2));
        };
        assert!(exit.success(), "{command:?}: {exit}");
        let cpu = children_cpu() - before;
        Cost {
            cpu: cpu.as_secs_f64() * 1e9 / (self.extent.size << 20) as f64,
            wall: started.elapsed().as_secs_f64(),
            memory: f64::from(memory) / 1024.0,
        }
    }
}

/// What a reencryption has cost.
#[derive(Clone, Copy)]
struct Cost {
    /// Nanoseconds of CPU time for each byte.
    cpu: f64,
    /// Seconds.
    wall: f64,
    /// The largest resident set, in MiB.
    memory: f64,
}

/// One of the figures of a cost.
type Figure = fn(&Cost) -> f64;

fn ours(files: &Files, image: &str, how: &str) -> Cost {
    let args = ["reencrypt", image, "--resilience", how];
    let mut command = luksmith(&args);
    command.args(["--key-file", &files.key]);
    files.run(command.args(CHEAP.split(' ')))
}

fn theirs(files: &Files, image: &str, how: &str) -> Cost {
    let mut command = Command::new("cryptsetup");
    command.args(["reencrypt", "-q", "--disable-locks", image]);
    command.args(["--force-offline-reencrypt", "--resilience", how]);
    command.args(["--key-file", &files.key]);
    files.run(command.args(CHEAP.split(' ')))
}

fn pairs(files: &Files, arguments: &Arguments) {
    println!("## {} MiB beside cryptsetup\n", files.extent.size);
    println!("| | luksmith | cryptsetup | ratio |\n|---|---|---|---|");
    let (image, other) = (files.volume("ours.img"), files.volume("theirs.img"));
    for how in RESILIENCES.into_iter().filter(|how| arguments.want(how)) {
        let round = |_| (ours(files, &image, how), theirs(files, &other, how));
        let rounds: Vec<(Cost, Cost)> = (0..files.extent.rounds).map(round).collect();
        let figures: [(&str, Figure); 3] = [
            ("CPU ns a byte", |cost| cost.cpu),
            ("seconds", |cost| cost.wall),
            ("MiB of memory", |cost| cost.memory),
        ];
        for (unit, figure) in figures {
            let name = format!("{how}, {unit}");
            for (ours, theirs) in &rounds {
                record(&name, "luksmith", figure(ours));
                record(&name, "cryptsetup", figure(theirs));
            }
            let ours = median(rounds.iter().map(|(ours, _)| figure(ours)));
            let theirs = median(rounds.iter().map(|(_, theirs)| figure(theirs)));
            let ratios = rounds
                .iter()
                .map(|(ours, theirs)| figure(ours) / figure(theirs));
            let ratio = median(ratios);
            println!("| {name} | {ours:.2} | {theirs:.2} | {ratio:.2} |");
        }
    }
    for image in [image, other] {
        std::fs::remove_file(image).unwrap();
    }
}

/// The time within which 99 of 100 requests have their replies, beside a reencryption and without.
fn beside_a_client(files: &Files, arguments: &Arguments) {
    println!("\n## A client with 4 KiB requests, milliseconds\n");
    println!("| | median | p99 | largest | converted meanwhile |\n|---|---|---|---|---|");
    let image = files.volume("served.img");
    for how in ["none", "checksum", "journal"] {
        if !arguments.want(how) {
            continue;
        }
        if how != "none" {
            let args = ["reencrypt", &image, "--init-only", "--resilience", how];
            let mut begin = luksmith(&args);
            begin.args(["--key-file", &files.key]);
            files.run(begin.args(CHEAP.split(' ')));
        }
        let result = files.path("fio.json");
        let fio = format!(
            "fio --name=client --ioengine=nbd --uri=\"$uri\" --rw=randrw --bs=4k --size={}M \
             --iodepth=1 --time_based --runtime={} --output-format=json --output={result}",
            files.extent.size, files.extent.client
        );
        let mut serve = luksmith(&["serve", &image, "--key-file", &files.key, "--run", &fio]);
        files.run(&mut serve);
        let result: serde_json::Value =
            serde_json::from_slice(&std::fs::read(result).unwrap()).unwrap();
        let mut worst = [0_f64; 3];
        for direction in ["read", "write"] {
            let times = &result["jobs"][0][direction]["clat_ns"];
            let found = [
                &times["percentile"]["50.000000"],
                &times["percentile"]["99.000000"],
                &times["max"],
            ];
            for (worst, found) in worst.iter_mut().zip(found) {
                *worst = worst.max(found.as_f64().unwrap() / 1e6);
            }
        }
        let info = luksmith(&["info", &image, "--json"]).output().unwrap();
        let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
        let converted = match (how, info["reencryption"]["converted"].as_u64()) {
            ("none", _) => "nothing".to_owned(),
            (_, None) => "everything".to_owned(),
            (_, Some(bytes)) => format!("{} MiB", bytes >> 20),
        };
        let [middle, p99, largest] = worst;
        record(&format!("{how}, p99 ms"), "luksmith", p99);
        println!("| {how} | {middle:.2} | {p99:.2} | {largest:.1} | {converted} |");
        if info["reencryption"].is_object() {
            ours(files, &image, how);
        }
    }
}

fn luksmith(arguments: &[&str]) -> Command {
    let mut command = Command::new(program(env!("CARGO_BIN_EXE_luksmith")));
    command.args(arguments);
    command
}
