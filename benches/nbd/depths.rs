//! Queue depths from 1 to 32, and 4 to 64 connections, beside nbdkit. Unlike in the other rows, the
//! client runs on any processor, as a guest does.

use std::time::Duration;

use support::bench::{median, record};

use super::servers::{Cost, Server};

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_millis(300);

/// Prints a row for each load. `servers` are luksmith and nbdkit.
pub(super) fn compare(servers: &[Server], wanted: &impl Fn(&str) -> bool) {
    println!(
        "\n| any processor | luksmith | nbdkit file, no crypto | ratio | smallest | largest |"
    );
    println!("|---|---|---|---|---|---|");
    let until = ["--time_based", "--runtime=300ms"];
    for depth in [1, 2, 4, 8, 16, 32] {
        for (what, how) in [("reads", "randread"), ("writes", "randwrite")] {
            let name = format!("random 4 KiB {what} at depth {depth}, any processor");
            small(&name, servers, wanted, |server| {
                server.free_load(how, "4k", &depth.to_string(), &until)
            });
        }
    }
    for connections in [4, 16, 64] {
        for (what, how) in [("reads", "randread"), ("writes", "randwrite")] {
            let name =
                format!("random 4 KiB {what}, {connections} connections, depth 4, any processor");
            small(&name, servers, wanted, |server| {
                server.connections(connections, how, TIME)
            });
        }
    }
    for how in ["read", "write"] {
        let name = format!("sequential 1 MiB {how}s, any processor, MB/s");
        row(&name, 1e6, servers, wanted, |server| {
            server.free_load(how, "1M", "4", &until)
        });
    }
}

fn small(
    name: &str,
    servers: &[Server],
    wanted: &impl Fn(&str) -> bool,
    load: impl Fn(&Server) -> Cost,
) {
    let name = format!("{name}, thousand a second");
    row(&name, 4096e3, servers, wanted, load);
}

/// In every second round the servers have their turns in the other order.
fn row(
    name: &str,
    unit: f64,
    servers: &[Server],
    wanted: &impl Fn(&str) -> bool,
    load: impl Fn(&Server) -> Cost,
) {
    if !wanted(name) {
        return;
    }
    let rounds: Vec<[f64; 2]> = (0..ROUNDS)
        .map(|round| {
            let mut rates = [0.0; 2];
            for turn in 0..2 {
                let server = (round + turn) % 2;
                rates[server] = load(&servers[server]).rate / unit;
            }
            rates
        })
        .collect();
    for rates in &rounds {
        record(name, "luksmith", rates[0]);
        record(name, "nbdkit", rates[1]);
    }
    let of = |server: usize| median(rounds.iter().map(|rates| rates[server]));
    let mut ratios: Vec<f64> = rounds.iter().map(|[ours, theirs]| ours / theirs).collect();
    ratios.sort_by(f64::total_cmp);
    println!(
        "| {name} | {:.1} | {:.1} | {:.2} | {:.2} | {:.2} |",
        of(0),
        of(1),
        median(ratios.iter().copied()),
        ratios[0],
        ratios[ROUNDS - 1],
    );
}
