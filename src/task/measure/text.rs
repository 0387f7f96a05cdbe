//! Measurements as a table.

use super::ciphers::{Speed, Subject};
use super::derivations::{Derivation, Function};
use super::measured::Measured;
use super::selection::Part;
use super::statistics::Spread;
use crate::xts::Kernel;

/// The head of the table whose rows [`row`] makes.
const HEADER: &str = "\
#  Algorithm             Key  Sector  Buffer  Threads  Encryption, MiB/s  Decryption, MiB/s  \
Of limit  Runs  Kernel";

/// The lines of a measurement, one part after the other.
#[derive(Debug, Default)]
pub struct Table {
    has_header: bool,
}

impl Table {
    /// The lines of the next part.
    pub fn lines(&mut self, part: &Part<'_>) -> String {
        match part {
            Part::Machine(machine) => {
                format!("# Measured in memory, without any storage: {machine}")
            }
            Part::Derivation(derivation) => line(derivation),
            Part::Speed(speed) if self.has_header => row(speed),
            Part::Speed(speed) => {
                self.has_header = true;
                format!("{HEADER}\n{}", row(speed))
            }
        }
    }
}

/// The row of a cipher.
fn row(speed: &Speed) -> String {
    let Subject {
        spec,
        key_size,
        sector_size,
        buffer_size,
        kernel,
        threads,
        ..
    } = speed.subject;
    let of_limit = speed
        .of_limit()
        .map_or_else(|| "-".to_owned(), |parts| format!("{:.0} %", parts * 100.0));
    let kernel = match kernel {
        None => "-".to_owned(),
        // Its name says nothing about what it uses.
        Some(Kernel::Portable) => {
            format!(
                "{} ({})",
                Kernel::Portable,
                Kernel::Portable.implementation()
            )
        }
        Some(kernel) => kernel.to_string(),
    };
    let buffer = match buffer_size {
        _ if buffer_size.is_multiple_of(1 << 20) => format!("{}M", buffer_size >> 20),
        _ if buffer_size.is_multiple_of(1 << 10) => format!("{}K", buffer_size >> 10),
        _ => buffer_size.to_string(),
    };
    format!(
        "{:<22} {:>4}b  {sector_size:>6}  {buffer:>6}  {threads:>7}  {:>17}  {:>17}  \
         {of_limit:>8}  {:>4}  {kernel}",
        spec.to_string(),
        key_size * 8,
        mib(&speed.encrypt),
        mib(&speed.decrypt),
        speed.encrypt.runs.min(speed.decrypt.runs),
    )
}

/// Mean and standard deviation in MiB per second, the unit of cryptsetup.
fn mib(spread: &Spread) -> String {
    let mib = |rate: u64| rate as f64 / f64::from(1 << 20);
    let (mean, sigma, mark) = (mib(spread.mean), mib(spread.sigma), mark(spread.is_busy()));
    format!("{mean:.1} ± {sigma:.1}{mark}")
}

fn mark(busy: bool) -> &'static str {
    if busy { "*" } else { "" }
}

/// The line of a key derivation.
fn line(derivation: &Derivation) -> String {
    let (name, bits) = (derivation.name(), derivation.key_size * 8);
    let Spread {
        mean, sigma, runs, ..
    } = *derivation.spread();
    let mark = mark(derivation.busy);
    match &derivation.function {
        Function::Argon2 {
            cost, requested_ms, ..
        } => format!(
            "{name:<17} {} passes, {} KiB memory, {} threads for {bits}-bit key: {} ± {} \
             ms{mark} ({runs} runs, requested {requested_ms} ms)",
            cost.passes,
            cost.memory_kib,
            cost.lanes,
            mean / 1000,
            sigma / 1000,
        ),
        _ => format!(
            "{name:<17} {mean:>10} ± {sigma} iterations per second{mark} for {bits}-bit key \
             ({runs} runs)"
        ),
    }
}

impl Measured {
    /// How a measurement compares with an older one.
    #[must_use]
    pub fn comparison(&self, old: &Self) -> String {
        let mut lines = vec![format!(
            "# Times as fast as on {}, {}: in the best turns, and in the means with the standard \
         deviation of two turns",
            old.machine.date, old.machine.cpu
        )];
        for one in self.compared_with(old) {
            lines.push(format!(
                "{:>6.3}  {:>6.3} ± {:.3}{}  {}",
                one.speedup.of_bests,
                one.speedup.of_means,
                one.speedup.sigma,
                mark(one.busy),
                one.name
            ));
        }
        if lines.len() == 1 {
            lines.push("nothing that both measured".to_owned());
        }
        lines.join("\n")
    }
}
