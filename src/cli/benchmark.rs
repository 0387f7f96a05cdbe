//! `luksmith benchmark`: measures this machine, in cryptsetup's units, and draws a chart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use luksmith::task::destination::{Destination, Present};
use luksmith::task::measure::{Measured, Selection, Table, chart};
use luksmith::task::new_file::NewFile;
use luksmith::xts::Kernel;
use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::hash::Hash;

use super::Session;
use super::args::LocalFile;
use super::error::CommandError;
use super::force::{Force, confirm, only};
use super::kernel;
use super::output;
use super::size::{self, SIZE};

/// The largest buffer that is measured.
const LARGEST_BUFFER: usize = 1 << 30;

/// Measure key derivations and ciphers on this machine
///
/// This measures ciphers in memory, with every AES-XTS kernel that this CPU supports, and the speed
/// of key derivations. It does not measure storage, the page cache or opening a volume. Figures are
/// the mean of many short turns, with the standard deviation of a turn. With several threads, the
/// speed is the bytes of all of them, divided by the time until the last one has ended its turn. A
/// figure that is far from its best turn has an asterisk: the machine was busy. So has a key
/// derivation that had to wait for a processor. "Of limit" is the part of the speed of the rounds
/// of AES without anything else, at the kernel's register width, in the best turn of the slower
/// direction.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Measure only this cipher, and no key derivation
    #[arg(short, long, value_name = "SPEC", value_parser = super::args::parse_cipher)]
    cipher: Option<CipherSpec>,

    /// Measure AES-XTS only with these kernels (portable, aesni, …), separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = kernel)]
    kernel: Vec<Kernel>,

    /// Measure only these key sizes in bits, separated by commas: of ciphers that have them, and of
    /// derived keys
    #[arg(short = 's', long, value_name = "BITS", value_delimiter = ',', value_parser = key_bits)]
    key_size: Vec<usize>,

    /// Measure only PBKDF2 with these hashes, separated by commas, and ciphers only with --cipher
    #[arg(long, value_name = "HASH", value_delimiter = ',', value_parser = super::args::parse_hash)]
    hash: Vec<Hash>,

    /// Measure only these sector sizes, separated by commas
    #[arg(long, value_name = "BYTES", value_delimiter = ',', value_parser = sector_size)]
    sector_size: Vec<u32>,

    /// Encrypt so many bytes at once, separated by commas [default: 64K]
    #[arg(long, value_name = SIZE, value_delimiter = ',', value_parser = buffer_size)]
    buffer_size: Vec<usize>,

    /// Measure with these numbers of threads, separated by commas [default: one, and for the best
    /// kernel also the number of processors]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,

    /// The time that each cipher runs in each direction
    #[arg(long, value_name = "SECONDS", default_value = "0.05", value_parser = seconds)]
    seconds: Duration,

    /// The time for which argon2's parameters are chosen
    #[arg(short, long, value_name = "MS", default_value_t = 2000)]
    iter_time: u32,

    /// Print comma-separated values
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    /// Print also how much faster this is than an older measurement, a file with the output of
    /// --json
    #[arg(long, value_name = "FILE", value_parser = LocalFile)]
    compare: Option<PathBuf>,

    /// Measure nothing, and show measurements from files with the output of --json, separated by
    /// commas. With several files, --plot compares their machines
    #[arg(
        long,
        value_name = "FILE",
        value_delimiter = ',',
        value_parser = LocalFile,
        conflicts_with_all = [
            "cipher", "kernel", "key_size", "hash", "sector_size", "buffer_size", "threads",
            "seconds", "iter_time",
        ]
    )]
    from: Vec<PathBuf>,

    /// Also draw a chart, in a new SVG file
    #[arg(long, value_name = "FILE", value_parser = LocalFile)]
    plot: Option<PathBuf>,

    /// Go on without asking: overwrite, if the file of the chart exists
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = only(&[(Force::Overwrite, "replace the file of the chart")]))]
    force: Vec<Force>,
}

const EXAMPLES: &str = "\
Examples:
  luksmith benchmark
  luksmith benchmark --plot benchmark.svg
  luksmith benchmark --cipher aes-xts-plain64 --threads 1,2,4,8
  luksmith benchmark --kernel vaes256,aesni --sector-size 4096 --seconds 1
  luksmith benchmark --hash sha512 --key-size 512
  luksmith benchmark --json > new.json
  luksmith benchmark --from new.json --compare old.json
  luksmith benchmark --from machine1.json,machine2.json --plot machines.svg
  luksmith benchmark --json | jq '.ciphers[] | select(.sector_size == 4096)'";

fn kernel(name: &str) -> Result<Kernel, String> {
    let kernel: Kernel = name
        .parse()
        .map_err(|error: luksmith::xts::KernelError| error.to_string())?;
    let available = Kernel::available();
    if available.contains(&kernel) {
        return Ok(kernel);
    }
    let names: Vec<_> = available.iter().map(|kernel| kernel.name()).collect();
    Err(format!("this machine has {}", names.join(", ")))
}

fn sector_size(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(size @ (512 | 1024 | 2048 | 4096)) => Ok(size),
        _ => Err("sectors have 512, 1024, 2048 or 4096 bytes".to_owned()),
    }
}

/// A key size in bits as bytes.
fn key_bits(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(bits @ 8..=4096) if bits.is_multiple_of(8) => Ok(bits / 8),
        _ => Err("a key has whole bytes, and at most 4096 bits".to_owned()),
    }
}

fn buffer_size(text: &str) -> Result<usize, String> {
    match usize::try_from(size::parse(text)?) {
        Ok(size @ 512..=LARGEST_BUFFER) => Ok(size),
        _ => Err("from 512 bytes to 1 GiB".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= 3600.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "a number of seconds, at most 3600".to_owned())
}

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        if self.from.len() > 1 && (session.json || self.csv || self.compare.is_some()) {
            return Err(CommandError::parameters(
                "--from: several files can only be shown and drawn, not with --json, --csv or \
                 --compare",
            ));
        }
        // Find out before the measurements whether the chart can be written, and the file be read.
        let chart = self
            .plot
            .as_deref()
            .map(|path| self.may_replace(path))
            .transpose()?;
        let old = self.compare.as_deref().map(Measured::read).transpose()?;
        let all = match &self.from[..] {
            [] => vec![self.measure(session)?],
            files => self.read(files, session)?,
        };
        for measured in &all {
            self.show(measured, old.as_ref(), session);
        }
        if let Some(destination) = chart {
            let svg = match &all[..] {
                [one] => chart::svg(one)?,
                several => chart::machines(several)?,
            };
            let file = NewFile::at(destination, session)?;
            file.write(svg.as_bytes())?;
            file.keep()?;
        }
        Ok(())
    }

    /// Reads measurements, and prints their tables.
    fn read(&self, files: &[PathBuf], session: &Session) -> Result<Vec<Measured>, CommandError> {
        let mut all = Vec::new();
        for file in files {
            let measured = Measured::read(file)?;
            if self.is_table(session) {
                let mut table = Table::default();
                measured
                    .parts()
                    .for_each(|part| session.output.lines(table.lines(&part)));
            }
            all.push(measured);
        }
        Ok(all)
    }

    fn is_table(&self, session: &Session) -> bool {
        !session.json && !self.csv
    }

    /// Prints what is known at the end.
    fn show(&self, measured: &Measured, old: Option<&Measured>, session: &Session) {
        if session.json {
            session.output.json(&measured.json_beside(old));
            return;
        }
        if self.csv {
            session.output.lines(measured.csv().trim_end());
            return;
        }
        if let Some(old) = old {
            session.output.lines(measured.comparison(old));
        }
        match measured.busy() {
            (0, _) => {}
            (busy, all) => output::note(format_args!(
                "the machine was busy during {busy} of {all} measurements, which are marked with *"
            )),
        }
    }

    fn may_replace(&self, path: &Path) -> Result<Destination, CommandError> {
        let destination = Destination::look(path)?;
        match destination.present() {
            Present::Nothing => Ok(destination),
            Present::File { size } => {
                let loss = format!("{} exists and has {size} bytes", path.display());
                confirm(&self.force, Force::Overwrite, &loss)?;
                Ok(destination)
            }
            Present::BlockDevice => Err(CommandError::parameters(format!(
                "{} is a block device; a chart needs a file",
                path.display()
            ))),
        }
    }

    fn measure(&self, session: &Session) -> Result<Measured, CommandError> {
        let mut selection = Selection::default();
        selection.cipher = self.cipher;
        selection.kernels = match kernel::named() {
            Ok(Some(kernel)) if self.kernel.is_empty() => vec![kernel],
            _ => self.kernel.clone(),
        };
        selection.other_ciphers = self.kernel.is_empty();
        selection.key_sizes = self.key_size.clone();
        selection.sector_sizes = self.sector_size.clone();
        selection.buffer_sizes = self.buffer_size.clone();
        selection.hashes = self.hash.clone();
        selection.threads = self.threads.iter().copied().map(usize::from).collect();
        let no_ciphers = self.cipher.is_none() && self.kernel.is_empty();
        selection.derivations = no_ciphers || !self.hash.is_empty();
        selection.ciphers = !no_ciphers || self.hash.is_empty();
        selection.long = self.seconds;
        selection.iter_time_ms = self.iter_time;
        let mut table = Table::default();
        selection.measure(session, |part| {
            if !self.is_table(session) {
                return Ok(());
            }
            session.output.lines(table.lines(&part));
            session.output.finish()
        })
    }
}
