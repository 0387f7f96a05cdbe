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
//!
//! `cargo bench --bench nbd -- any` measures only the rows of `depths.rs`: each queue depth, and
//! several connections, with a client that runs on any processor.

#![allow(missing_docs, clippy::print_stdout)]

mod client;
mod depths;
mod servers;

use std::process::Command;
use std::time::Duration;

use servers::{Cost, Files, Kind, Server, luksmith, nbdkit_on_a_small_file};
use support::bench::{Arguments, Better, cpu_model, median, record, report};

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
    depths::compare(&servers[..2], &wanted);
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
