//! `luksmith benchmark`: measures this machine, in cryptsetup's units, and draws a chart.

mod chart;
mod measured;
mod plot;
mod shown;

use std::path::{Path, PathBuf};
use std::time::Duration;

use luksmith::task::destination::{Destination, Present};
use luksmith::task::measure::{self, Derivation, HASHES, Machine, Subject};
use luksmith::task::new_file::NewFile;
use luksmith::xts::Kernel;
use luksmith_formats::cipher::{BlockCipher, CipherSpec, Mode};

use super::Session;
use super::args::LocalFile;
use super::error::CommandError;
use super::force::{Force, confirm, only};
use super::kernel;
use super::output;
use measured::Measured;

const SECTOR_SIZES: [u32; 2] = [512, 4096];
const CIPHERS: [(&str, &[usize]); 8] = [
    ("aes-xts-plain64", &[64, 32]),
    ("aes-cbc-essiv:sha256", &[32, 16]),
    ("serpent-xts-plain64", &[64]),
    ("serpent-cbc-plain64", &[32]),
    ("camellia-xts-plain64", &[64]),
    ("camellia-cbc-plain64", &[32]),
    ("twofish-xts-plain64", &[64]),
    ("twofish-cbc-plain64", &[32]),
];

/// Measure key derivations and ciphers on this machine
///
/// This measures ciphers on 64 KiB in memory, with every AES-XTS kernel that this CPU supports, and
/// the speed of key derivations. It does not measure storage, the page cache or opening a volume.
/// Each figure is the best of many short turns. If the medians are far lower, the machine was busy,
/// and a note says so. "limit" is the speed of the rounds of AES without anything else, at the
/// kernel's register width: no kernel of that width can be faster on this CPU.
///
/// With --json: {"version", "date", "cpu", "processors", "busy", "kdf": [{"type", "hash",
/// "iterations_per_second"} or {"type", "passes", "memory", "threads", "time_ms"}], "ciphers":
/// [{"cipher", "key_bits", "sector_size", "kernel", "threads", "encrypt", "encrypt_median",
/// "decrypt", "decrypt_median", "limit"}]}; memory in bytes, speeds in bytes per second of all
/// threads together; kernel and limit are null if there is none.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Measure only this cipher, and no key derivation
    #[arg(short, long, value_name = "SPEC", value_parser = super::args::parse_cipher)]
    cipher: Option<CipherSpec>,

    /// Measure AES-XTS only with these kernels (portable, aesni, …), separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = kernel)]
    kernel: Vec<Kernel>,

    /// Measure only these sector sizes, separated by commas
    #[arg(long, value_name = "BYTES", value_delimiter = ',', value_parser = sector_size)]
    sector_size: Vec<u32>,

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

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Also draw a chart, in a new SVG file
    #[arg(long, value_name = "FILE", value_parser = LocalFile)]
    plot: Option<PathBuf>,

    /// Go on without asking: overwrite, if the file of the chart exists
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = only(&[Force::Overwrite]))]
    force: Vec<Force>,
}

const EXAMPLES: &str = "\
Examples:
  luksmith benchmark
  luksmith benchmark --plot benchmark.svg
  luksmith benchmark --cipher aes-xts-plain64 --threads 1,2,4,8
  luksmith benchmark --kernel vaes256,aesni --sector-size 4096 --seconds 1
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

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= 3600.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "a number of seconds, at most 3600".to_owned())
}

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        // Find out before the measurements whether the chart can be written.
        let chart = self
            .plot
            .as_deref()
            .map(|path| self.may_replace(path))
            .transpose()?;
        let measured = self.measure(session)?;
        if self.json {
            session.output.json(&measured.json());
        } else if let Some(loss) = measured.lost_to_others() {
            output::note(format_args!(
                "the machine was busy: the median is {loss} % below the best; the figures are too \
                 low"
            ));
        }
        if let Some(destination) = chart {
            let file = NewFile::at(destination, session)?;
            file.write(chart::svg(&measured)?.as_bytes())?;
            file.keep()?;
        }
        Ok(())
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
        let groups = self.groups()?;
        let say = |line: &dyn std::fmt::Display| {
            if self.json {
                return Ok(());
            }
            session.output.now(line)
        };
        let machine = Machine::look();
        say(&format_args!(
            "# Measured in memory, without any storage: {machine}"
        ))?;
        let mut derivations = Vec::new();
        if self.cipher.is_none() && self.kernel.is_empty() {
            let interrupt = session.signals.interrupt();
            for hash in HASHES {
                let derivation = Derivation::pbkdf2(hash, interrupt)?;
                say(&shown::line(&derivation))?;
                derivations.push(derivation);
            }
            let derivation = Derivation::argon2id(self.iter_time, interrupt)?;
            say(&shown::line(&derivation))?;
            derivations.push(derivation);
        }
        say(&shown::HEADER)?;
        let mut speeds = Vec::new();
        for group in groups {
            // The ciphers and kernels of a group take turns, so that they can be compared.
            let group = measure::ciphers(group, self.seconds, session)?;
            for speed in &group {
                say(&shown::row(speed))?;
            }
            speeds.extend(group);
        }
        Ok(Measured {
            machine,
            derivations,
            speeds,
        })
    }

    /// The measurements to make, in groups of one cipher and key size.
    fn groups(&self) -> Result<Vec<Vec<Subject>>, CommandError> {
        let named = self.cipher.map(|spec| (spec, spec.key_sizes().to_vec()));
        let all = CIPHERS
            .iter()
            .filter_map(|(name, sizes)| Some((CipherSpec::parse(name).ok()?, sizes.to_vec())));
        let wanted: Vec<_> = named.map_or_else(|| all.collect(), |named| vec![named]);
        let mut groups = Vec::new();
        for (spec, mut key_sizes) in wanted {
            let kernels = self.kernels(spec)?;
            key_sizes.sort_unstable_by_key(|size| std::cmp::Reverse(*size));
            for key_size in key_sizes {
                let group = self.group(spec, key_size, &kernels);
                groups.extend((!group.is_empty()).then_some(group));
            }
        }
        Ok(groups)
    }

    /// The kernels to measure a cipher with: `None` for ciphers without kernels.
    fn kernels(&self, spec: CipherSpec) -> Result<Vec<Option<Kernel>>, CommandError> {
        let has_kernels = spec.cipher == BlockCipher::Aes && spec.mode == Mode::Xts;
        if !has_kernels {
            if self.kernel.is_empty() {
                return Ok(vec![None]);
            }
            return match self.cipher {
                Some(spec) => Err(CommandError::parameters(format!(
                    "--kernel: {spec} has none; aes-xts has"
                ))),
                None => Ok(Vec::new()),
            };
        }
        let kernels = if !self.kernel.is_empty() {
            self.kernel.clone()
        } else if let Ok(Some(kernel)) = kernel::named() {
            vec![kernel]
        } else {
            Kernel::available()
        };
        Ok(kernels.into_iter().map(Some).collect())
    }

    fn group(&self, spec: CipherSpec, key_size: usize, kernels: &[Option<Kernel>]) -> Vec<Subject> {
        let sector_sizes = if self.sector_size.is_empty() {
            &SECTOR_SIZES[..]
        } else {
            &self.sector_size
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let mut group = Vec::new();
        let mut add = |kernel: Option<Kernel>, threads: usize| {
            group.extend(sector_sizes.iter().map(|&sector_size| {
                Subject::new(spec, key_size, sector_size)
                    .kernel(kernel)
                    .threads(threads)
            }));
        };
        for (at, kernel) in kernels.iter().enumerate() {
            if self.threads.is_empty() {
                add(*kernel, 1);
                if at == 0 && kernel.is_some() && processors > 1 {
                    add(*kernel, processors);
                }
            }
            for &threads in &self.threads {
                add(*kernel, threads.into());
            }
        }
        group
    }
}
