//! Measurements as JSON, and read from it again.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use luksmith_formats::hash::Hash;
use luksmith_formats::json::{Value, json};
use luksmith_formats::luks2::Argon2Variant;

use super::ciphers::{Speed, Subject};
use super::compare::Compared;
use super::derivations::{Derivation, Function};
use super::machine::Machine;
use super::measured::Measured;
use super::statistics::Spread;
use crate::kdf::Argon2Cost;
use crate::task::outcome::SCHEMA;
use crate::task::{Error, Kind};
use crate::xts::Kernel;

/// How much of a file is read.
const MOST_BYTES: u64 = 16 << 20;

impl Measured {
    /// The measurements as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let machine = &self.machine;
        json!({
            "schema": SCHEMA,
            "version": self.version,
            "date": machine.date,
            "cpu": machine.cpu,
            "processors": machine.processors,
            "os": machine.os,
            "kernel_version": machine.kernel_version,
            "mhz": machine.mhz,
            "governor": machine.governor,
            "busy": self.is_busy(),
            "kdf": self.derivations.iter().map(derivation).collect::<Value>(),
            "ciphers": self.speeds.iter().map(speed).collect::<Value>(),
        })
    }

    /// The measurements as JSON, with their comparison with older ones as `compared`.
    #[must_use]
    pub fn json_beside(&self, old: Option<&Self>) -> Value {
        let mut value = self.json();
        value["compared"] = json!(old.map(|old| json!({
            "date": old.machine.date,
            "cpu": old.machine.cpu,
            "rows": self.compared_with(old).iter().map(Compared::json).collect::<Value>(),
        })));
        value
    }

    /// Reads a file with the JSON that [`json`](Self::json) or [`json_beside`](Self::json_beside)
    /// made.
    ///
    /// # Errors
    /// That of the system call, and [`Kind::Damaged`] if it is something else.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |error| Error::io("read", path, error);
        let mut text = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MOST_BYTES)
            .read_to_end(&mut text)
            .map_err(failed)?;
        Self::from_json(&String::from_utf8_lossy(&text))
            .map_err(|error| error.about(path.display()))
    }

    /// Reads what [`json`](Self::json) wrote.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if it is not a measurement, or of another version of this form.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let value: Value = text
            .parse()
            .map_err(|error| Error::new(Kind::Damaged, Box::new(error) as Box<_>))?;
        let Some(read) = measured(&value) else {
            let message = match value["schema"].as_str() {
                Some(SCHEMA) => "not what benchmark --json prints",
                _ => "not what this version of benchmark --json prints: no schema luksmith/1",
            };
            return Err(Error::new(Kind::Damaged, message));
        };
        Ok(read)
    }
}

fn spread(spread: &Spread) -> Value {
    json!({
        "best": spread.best,
        "median": spread.median,
        "mean": spread.mean,
        "sigma": spread.sigma,
        "runs": spread.runs,
    })
}

fn derivation(derivation: &Derivation) -> Value {
    let bits = derivation.key_size * 8;
    let busy = derivation.busy;
    match &derivation.function {
        Function::Pbkdf2 { hash, rate } => json!({
            "type": "pbkdf2",
            "hash": hash.name(),
            "key_bits": bits,
            "iterations_per_second": spread(rate),
            "passes": null,
            "memory": null,
            "threads": null,
            "time_us": null,
            "requested_ms": null,
            "busy": busy,
        }),
        Function::Argon2 {
            cost,
            took,
            requested_ms,
        } => json!({
            "type": cost.variant.name(),
            "hash": null,
            "key_bits": bits,
            "iterations_per_second": null,
            "passes": cost.passes,
            "memory": u64::from(cost.memory_kib) * 1024,
            "threads": cost.lanes,
            "time_us": spread(took),
            "requested_ms": requested_ms,
            "busy": busy,
        }),
    }
}

fn speed(speed: &Speed) -> Value {
    let subject = &speed.subject;
    json!({
        "cipher": subject.spec.to_string(),
        "key_bits": subject.key_size * 8,
        "sector_size": subject.sector_size,
        "buffer_size": subject.buffer_size,
        "kernel": subject.kernel.map(Kernel::name),
        "implementation": subject.kernel.map(Kernel::implementation),
        "threads": subject.threads,
        "encrypt": spread(&speed.encrypt),
        "decrypt": spread(&speed.decrypt),
        "limit": speed.limit,
        "busy": speed.is_busy(),
    })
}

fn measured(value: &Value) -> Option<Measured> {
    value["schema"]
        .as_str()
        .filter(|schema| *schema == SCHEMA)?;
    let text = |name: &str| Some(value[name].as_str()?.to_owned());
    let machine = Machine {
        cpu: text("cpu")?,
        processors: number(&value["processors"])?,
        date: text("date")?,
        os: text("os"),
        kernel_version: text("kernel_version"),
        mhz: value["mhz"].as_u64(),
        governor: text("governor"),
    };
    let read = |value: &Value| read_derivation(value);
    let derivations = value["kdf"].as_array()?.iter().map(read);
    let speeds = value["ciphers"].as_array()?.iter().map(read_speed);
    Some(Measured {
        version: text("version")?,
        machine,
        derivations: derivations.collect::<Option<_>>()?,
        speeds: speeds.collect::<Option<_>>()?,
    })
}

fn number<T: TryFrom<u64>>(value: &Value) -> Option<T> {
    T::try_from(value.as_u64()?).ok()
}

fn read_spread(value: &Value) -> Option<Spread> {
    let of = |name: &str| value[name].as_u64();
    Some(Spread {
        best: of("best")?,
        median: of("median")?,
        mean: of("mean")?,
        sigma: of("sigma")?,
        runs: of("runs")?,
    })
}

fn read_derivation(value: &Value) -> Option<Derivation> {
    let variants = [Argon2Variant::I, Argon2Variant::Id];
    let kind = value["type"].as_str()?;
    let function = if kind == "pbkdf2" {
        Function::Pbkdf2 {
            hash: value["hash"].as_str()?.parse::<Hash>().ok()?,
            rate: read_spread(&value["iterations_per_second"])?,
        }
    } else {
        let cost = Argon2Cost {
            variant: variants
                .into_iter()
                .find(|variant| variant.name() == kind)?,
            passes: number(&value["passes"])?,
            memory_kib: u32::try_from(value["memory"].as_u64()? / 1024).ok()?,
            lanes: number(&value["threads"])?,
        };
        Function::Argon2 {
            cost,
            took: read_spread(&value["time_us"])?,
            requested_ms: number(&value["requested_ms"])?,
        }
    };
    Some(Derivation {
        key_size: number::<usize>(&value["key_bits"])? / 8,
        function,
        busy: value["busy"].as_bool()?,
    })
}

fn read_speed(value: &Value) -> Option<Speed> {
    let kernel = match value["kernel"].as_str() {
        Some(name) => Some(name.parse::<Kernel>().ok()?),
        None => None,
    };
    let subject = Subject::new(
        value["cipher"].as_str()?.parse().ok()?,
        number::<usize>(&value["key_bits"])? / 8,
        number(&value["sector_size"])?,
    );
    Some(Speed {
        subject: subject
            .buffer_size(number(&value["buffer_size"])?)
            .kernel(kernel)
            .threads(number(&value["threads"])?),
        encrypt: read_spread(&value["encrypt"])?,
        decrypt: read_spread(&value["decrypt"])?,
        limit: value["limit"].as_u64(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::task::Silent;
    use crate::task::measure::Selection;

    #[test]
    fn what_was_written_is_read_again() {
        let selection = Selection {
            long: Duration::from_micros(10),
            derivations: false,
            kernels: vec![Kernel::Portable],
            ..Selection::default()
        };
        let watch = Silent::default();
        let mut measured = selection.measure::<Error>(&watch, |_| Ok(())).unwrap();
        let spread = Spread {
            best: 9,
            median: 7,
            mean: 6,
            sigma: 2,
            runs: 5,
        };
        let cost = Argon2Cost {
            variant: Argon2Variant::Id,
            passes: 4,
            memory_kib: 1 << 20,
            lanes: 2,
        };
        measured.derivations = [
            Function::Pbkdf2 {
                hash: Hash::Sha512,
                rate: spread,
            },
            Function::Argon2 {
                cost,
                took: spread,
                requested_ms: 2000,
            },
        ]
        .map(|function| Derivation {
            key_size: 64,
            function,
            busy: true,
        })
        .to_vec();
        let written = measured.json();
        let read = Measured::from_json(&written.to_string()).unwrap();
        assert_eq!(read.json().to_string(), written.to_string());
        assert_eq!(read.machine, measured.machine);
    }

    #[test]
    fn other_json_is_refused_and_never_panics() {
        for text in [
            "",
            "{}",
            "[]",
            "{\"schema\":\"luksmith/2\"}",
            "{\"schema\":\"luksmith/1\",\"kdf\":[{}]}",
            "{\"schema\":\"luksmith/1\",\"version\":\"1\",\"cpu\":\"c\",\"date\":\"d\",\
             \"processors\":1,\"kdf\":[],\"ciphers\":[{\"cipher\":\"none\"}]}",
        ] {
            let refused = Measured::from_json(text).unwrap_err();
            assert_eq!(refused.kind(), Kind::Damaged, "{text}");
        }
    }
}
