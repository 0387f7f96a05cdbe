//! Helpers that the bench programs share.
//!
//! With `--compare`, a bench program measures only luksmith, each row once, and prints a line of
//! JSON for each row. `benches/compare` runs it so with the programs of two commits.

use std::path::PathBuf;
use std::time::Duration;

/// The arguments of a bench program.
#[derive(Debug)]
pub struct Arguments {
    words: Vec<String>,
    /// Whether to measure only luksmith, and to print JSON.
    pub compare: bool,
    /// Whether to measure once and with little data, to see that the program works.
    pub quick: bool,
}

impl Arguments {
    /// The arguments of this process.
    ///
    /// Returns `None` if there is nothing to measure: `cargo test --benches` runs a bench program
    /// with `--test`, which only checks that it compiles.
    pub fn read() -> Option<Self> {
        let (options, words): (Vec<String>, Vec<String>) = std::env::args()
            .skip(1)
            .partition(|argument| argument.starts_with("--"));
        let has = |name: &str| options.iter().any(|option| option == name);
        (!has("--test")).then(|| Self {
            compare: has("--compare"),
            quick: has("--quick"),
            words,
        })
    }

    /// Whether a row is wanted: whether its name contains every word of the arguments.
    pub fn want(&self, row: &str) -> bool {
        self.words.iter().all(|word| row.contains(word.as_str()))
    }
}

/// The luksmith program to measure: the one that `LUKSMITH_BENCH_PROGRAM` names, or else `built`.
pub fn program(built: &str) -> PathBuf {
    std::env::var_os("LUKSMITH_BENCH_PROGRAM").map_or_else(|| built.into(), PathBuf::from)
}

/// Which of two measurements is the better one.
#[derive(Clone, Copy, Debug)]
pub enum Better {
    /// The larger one, for example a rate.
    More,
    /// The smaller one, for example a time.
    Less,
}

/// Prints a row as a line of JSON.
#[allow(clippy::print_stdout, reason = "the output of a bench program")]
pub fn report(row: &str, value: f64, better: Better) {
    let better = match better {
        Better::More => "more",
        Better::Less => "less",
    };
    println!("{{\"row\":\"{row}\",\"value\":{value},\"better\":\"{better}\"}}");
}

/// Adds a measurement of one round as a line of JSON to the file that `LUKSMITH_BENCH_RECORD`
/// names. Without the variable it does nothing.
///
/// # Panics
///
/// If the file cannot be written.
pub fn record(row: &str, way: &str, value: f64) {
    let Some(path) = std::env::var_os("LUKSMITH_BENCH_RECORD") else {
        return;
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    let line = format!("{{\"row\":\"{row}\",\"way\":\"{way}\",\"value\":{value}}}\n");
    std::io::Write::write_all(&mut file.unwrap(), line.as_bytes()).unwrap();
}

/// The median. Of an even number of values it is the upper one of the two in the middle.
///
/// # Panics
///
/// If there is no value.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The user and system time of all children of this process that have ended.
///
/// # Panics
///
/// If `/proc/self/stat` cannot be read.
pub fn children_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap();
    let each =
        Duration::from_secs(1) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap();
    each * u32::try_from(ticks).unwrap()
}

/// The model of the CPU, from `/proc/cpuinfo`.
pub fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": "))
        .map_or("unknown", |(_, name)| name)
        .to_owned()
}

#[test]
fn the_median_is_in_the_middle() {
    assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
}
