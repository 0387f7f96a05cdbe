//! `luksmith benchmark`: measures this machine, in cryptsetup's units, and draws a chart.

mod shown;

use std::path::{Path, PathBuf};
use std::time::Duration;

use luksmith::task::destination::{Destination, Present};
use luksmith::task::measure::{Measured, Part, Selection, chart};
use luksmith::task::new_file::NewFile;
use luksmith::xts::Kernel;
use luksmith_formats::cipher::CipherSpec;

use super::Session;
use super::args::LocalFile;
use super::error::CommandError;
use super::force::{Force, confirm, only};
use super::kernel;
use super::output;

/// Measure key derivations and ciphers on this machine
///
/// This measures ciphers on 64 KiB in memory, with every AES-XTS kernel that this CPU supports, and
/// the speed of key derivations. It does not measure storage, the page cache or opening a volume.
/// Each figure is the best of many short turns. If the medians are far lower, the machine was busy,
/// and a note says so. "limit" is the speed of the rounds of AES without anything else, at the
/// kernel's register width: no kernel of that width can be faster on this CPU.
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
        if session.json {
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
        let mut selection = Selection::default();
        selection.cipher = self.cipher;
        selection.kernels = match kernel::named() {
            Ok(Some(kernel)) if self.kernel.is_empty() => vec![kernel],
            _ => self.kernel.clone(),
        };
        selection.other_ciphers = self.kernel.is_empty();
        selection.sector_sizes = self.sector_size.clone();
        selection.threads = self.threads.iter().copied().map(usize::from).collect();
        selection.derivations = self.cipher.is_none() && self.kernel.is_empty();
        selection.long = self.seconds;
        selection.iter_time_ms = self.iter_time;
        let mut has_header = false;
        selection.measure(session, |part| {
            let line = match part {
                _ if session.json => return Ok(()),
                Part::Machine(machine) => {
                    format!("# Measured in memory, without any storage: {machine}")
                }
                Part::Derivation(derivation) => shown::line(derivation),
                Part::Speed(speed) if has_header => shown::row(speed),
                Part::Speed(speed) => {
                    has_header = true;
                    format!("{}\n{}", shown::HEADER, shown::row(speed))
                }
                _ => return Ok(()),
            };
            session.output.lines(line);
            session.output.finish()
        })
    }
}
