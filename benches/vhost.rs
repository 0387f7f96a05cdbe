//! Compares `luksmith serve --vhost-user` with qemu-storage-daemon, which serves the same data with
//! LUKS, and without encryption.
//!
//! `cargo bench --bench vhost`, or `cargo bench --bench vhost -- random` for the rows that contain
//! a word.
//!
//! The images have 512 MiB and are in memory (`/dev/shm`). The client is a guest without a machine
//! (`support::vhost_guest`) with one ring and one thread, which waits for the event of the server.
//! In the rows with two queues it has two rings, each with a thread.
//! In each round every server has a turn. The results are medians over rounds, and medians of the
//! ratios of the rounds. CPU is the server's user and system time from `/proc/PID/stat`. The output
//! is Markdown.

#![allow(missing_docs, clippy::print_stdout)]

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::bench::{Arguments, Better, cpu_model, median, program, record, report};
use support::vhost_guest::{DATA, FEATURES, Guest, NEXT, Queue, WRITE, header, headers, kind};

const SIZE: u64 = 512 << 20;
const ROUNDS: usize = 5;
/// How long the guest runs in a round.
const A_WHILE: Duration = Duration::from_secs(1);

/// What the guest does.
#[derive(Clone, Copy)]
struct Load {
    /// The name of the row.
    name: &'static str,
    writes: bool,
    random: bool,
    block: u32,
    /// The number of requests in flight on each queue.
    depth: u16,
    queues: usize,
}

const fn load(
    name: &'static str,
    how: (bool, bool),
    block: u32,
    depth: u16,
    queues: usize,
) -> Load {
    Load {
        name,
        writes: how.0,
        random: how.1,
        block,
        depth,
        queues,
    }
}

/// Whether a load writes, and whether at random.
const READ: (bool, bool) = (false, false);
const WRITES: (bool, bool) = (true, false);
const RANDOM_READ: (bool, bool) = (false, true);
const RANDOM_WRITE: (bool, bool) = (true, true);

const LOADS: [Load; 8] = [
    load("sequential 1 MiB reads", READ, 1 << 20, 4, 1),
    load("sequential 1 MiB writes", WRITES, 1 << 20, 4, 1),
    load("random 4 KiB reads, depth 1", RANDOM_READ, 4096, 1, 1),
    load("random 4 KiB writes, depth 1", RANDOM_WRITE, 4096, 1, 1),
    load("random 4 KiB reads, depth 32", RANDOM_READ, 4096, 32, 1),
    load("random 4 KiB writes, depth 32", RANDOM_WRITE, 4096, 32, 1),
    load(
        "random 4 KiB reads, two queues, depth 16",
        RANDOM_READ,
        4096,
        16,
        2,
    ),
    load(
        "random 4 KiB writes, two queues, depth 16",
        RANDOM_WRITE,
        4096,
        16,
        2,
    ),
];

const SERVERS: [&str; 3] = ["luksmith", "storage daemon, LUKS", "storage daemon, plain"];

fn main() {
    let Some(arguments) = Arguments::read() else {
        return;
    };
    let mut folder = tempfile::Builder::new();
    let folder = folder
        .prefix("luksmith-bench-")
        .tempdir_in("/dev/shm")
        .unwrap();
    make_images(folder.path());
    let kinds = if arguments.compare { 1 } else { SERVERS.len() };
    let servers: Vec<_> = (0..kinds)
        .map(|n| Server::start(n, folder.path()))
        .collect();
    if !arguments.compare {
        let processors = std::thread::available_parallelism().unwrap();
        println!("CPU: {}, {processors} online\n", cpu_model());
        println!("| | {} | to LUKS | to plain |", SERVERS.join(" | "));
        println!("|---|---|---|---|---|---|");
    }
    for load in LOADS {
        let Load { name, block, .. } = load;
        if !arguments.want(name) {
            continue;
        }
        let rounds: Vec<Vec<Cost>> = (0..if arguments.compare { 1 } else { ROUNDS })
            .map(|_| (servers.iter()).map(|server| server.load(load)).collect())
            .collect();
        let (rate, cpu) = match block {
            4096 => ("thousand a second", "server CPU µs each"),
            _ => ("MiB/s", "server CPU ns a byte"),
        };
        let per = if block == 4096 {
            4096e3
        } else {
            f64::from(1 << 20)
        };
        let of_cpu = if block == 4096 { 4.096 } else { 1.0 };
        if arguments.compare {
            report(
                &format!("{name}, {rate}"),
                rounds[0][0].rate / per,
                Better::More,
            );
            report(
                &format!("{name}, {cpu}"),
                rounds[0][0].cpu * of_cpu,
                Better::Less,
            );
            continue;
        }
        row(&format!("{name}, {rate}"), &rounds, |cost| cost.rate / per);
        row(&format!("{name}, {cpu}"), &rounds, |cost| cost.cpu * of_cpu);
    }
}

/// A row of medians. The ratios are those of the first server to the others.
fn row(name: &str, rounds: &[Vec<Cost>], figure: impl Fn(&Cost) -> f64) {
    for round in rounds {
        for (cost, way) in round.iter().zip(SERVERS) {
            record(name, way, figure(cost));
        }
    }
    let of = |n: usize| median(rounds.iter().map(|round| figure(&round[n])));
    let to = |n: usize| {
        let ratios = rounds
            .iter()
            .map(|round| figure(&round[0]) / figure(&round[n]));
        median(ratios)
    };
    let digits = if of(0) < 10.0 { 2 } else { 1 };
    let [ours, luks, plain] = [of(0), of(1), of(2)];
    println!(
        "| {name} | {ours:.digits$} | {luks:.digits$} | {plain:.digits$} | {:.2} | {:.2} |",
        to(1),
        to(2)
    );
}

/// The same data as LUKS2, as LUKS1 and as they are.
fn make_images(folder: &Path) {
    let mut key = std::fs::OpenOptions::new();
    let key = key
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(folder.join("key"));
    key.unwrap()
        .write_all(b"correct horse battery staple")
        .unwrap();
    let mut plain = std::fs::File::create(folder.join("plain")).unwrap();
    let mut chunk = vec![0; 1 << 20];
    for _ in 0..SIZE >> 20 {
        luksmith::secret::random(&mut chunk).unwrap();
        plain.write_all(&chunk).unwrap();
    }
    for version in ["luks2", "luks1"] {
        let made = Command::new(program(env!("CARGO_BIN_EXE_luksmith")))
            .current_dir(folder)
            .args([
                "encrypt",
                "plain",
                version,
                "--type",
                version,
                "--key-file",
                "key",
            ])
            .args(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"])
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success());
    }
}

/// What a load cost: bytes a second, and the server's nanoseconds for each byte.
struct Cost {
    rate: f64,
    cpu: f64,
}

/// A server, which runs until it is dropped.
struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    fn start(number: usize, folder: &Path) -> Self {
        let socket = folder.join(format!("{number}.sock"));
        let mut command = match number {
            0 => {
                let mut command = Command::new(program(env!("CARGO_BIN_EXE_luksmith")));
                command.args([
                    "serve",
                    "luks2",
                    "--key-file",
                    "key",
                    "--vhost-user",
                    "0.sock",
                ]);
                command
            }
            _ => {
                let mut command = Command::new("qemu-storage-daemon");
                let file = |name: &str| format!("driver=file,node-name=file,filename={name}");
                if number == 1 {
                    command.args(["--object", "secret,id=key,file=key"]);
                    command.args(["--blockdev", &file("luks1")]);
                    let luks = "driver=luks,node-name=disk,file=file,key-secret=key";
                    command.args(["--blockdev", luks]);
                } else {
                    command.args(["--blockdev", &file("plain")]);
                    command.args(["--blockdev", "driver=raw,node-name=disk,file=file"]);
                }
                let export = format!(
                    "type=vhost-user-blk,id=x,node-name=disk,writable=on,num-queues=2,\
                     addr.type=unix,addr.path={}",
                    socket.display()
                );
                command.args(["--export", &export]);
                command
            }
        };
        let child = command
            .current_dir(folder)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, socket };
        let begun = Instant::now();
        while Guest::connect(&server.socket, 1, FEATURES).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "no {}",
                SERVERS[number]
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// User and system time.
    fn cpu_time(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    fn load(&self, load: Load) -> Cost {
        let mut guest = self.guest(load.queues);
        let (before, begun) = (self.cpu_time(), Instant::now());
        let done: u64 = std::thread::scope(|scope| {
            let queues = guest.queues().into_iter();
            let threads = queues.map(|queue| scope.spawn(move || keep(queue, load, begun)));
            let threads: Vec<_> = threads.collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        let seconds = begun.elapsed().as_secs_f64();
        let bytes = done as f64 * f64::from(load.block);
        Cost {
            rate: bytes / seconds,
            cpu: (self.cpu_time() - before) * 1e9 / bytes,
        }
    }

    fn guest(&self, rings: usize) -> Guest {
        loop {
            // The server may still be about to end the client before.
            if let Ok(guest) = Guest::connect(&self.socket, rings, FEATURES) {
                return guest;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps requests in flight on a queue for [`A_WHILE`]. Returns how many ended.
fn keep(mut queue: Queue<'_>, load: Load, begun: Instant) -> u64 {
    let Load { block, depth, .. } = load;
    let (type_of, flags) = match load.writes {
        true => (kind::WRITE, NEXT),
        false => (kind::READ, NEXT | WRITE),
    };
    let first = headers(queue.number);
    let at = |slot: u16| first + 64 * u64::from(slot);
    // Only loads of small blocks have several queues.
    let data = DATA + (queue.number as u64 * (1 << 20));
    for slot in 0..depth {
        let data = data + u64::from(block) * u64::from(slot);
        let pattern = vec![0x5a; usize::try_from(block).unwrap()];
        queue.memory.write(data, &pattern);
        let parts = [
            (at(slot), 16, NEXT),
            (data, block, flags),
            (at(slot) + 16, 1, WRITE),
        ];
        queue.chain(3 * slot, &parts);
    }
    let blocks = SIZE / u64::from(block);
    let (mut state, mut next) = (88_172_645_463_325_252 + queue.number as u64, 0);
    let mut place = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        next += 1;
        let number = if load.random { state } else { next };
        number % blocks * u64::from(block) / 512
    };
    let mut free: Vec<u16> = (0..depth).collect();
    let mut done = 0;
    loop {
        let more = begun.elapsed() < A_WHILE;
        if !more && free.len() == usize::from(depth) {
            return done;
        }
        if more && !free.is_empty() {
            for slot in free.drain(..) {
                queue.memory.write(at(slot), &header(type_of, place()));
                queue.make_available(3 * slot);
            }
            queue.kick_if_needed();
        }
        let mut ended = Some(queue.wait().unwrap());
        while let Some((head, _)) = ended {
            assert_eq!(queue.memory.read(at(head / 3) + 16, 1), [0]);
            free.push(head / 3);
            done += 1;
            ended = queue.poll();
        }
    }
}
