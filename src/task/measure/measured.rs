//! What a benchmark measured.

use luksmith_formats::json::{Value, json};

use super::ciphers::Speed;
use super::derivations::Derivation;
use super::machine::Machine;
use crate::xts::Kernel;

/// Everything that was measured.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Measured {
    /// Where and when.
    pub machine: Machine,
    /// The key derivations.
    pub derivations: Vec<Derivation>,
    /// The ciphers.
    pub speeds: Vec<Speed>,
}

impl Measured {
    /// Nothing yet, on this machine.
    pub(super) fn here() -> Self {
        Self {
            machine: Machine::look(),
            derivations: Vec::new(),
            speeds: Vec::new(),
        }
    }

    /// The measurements as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "date": self.machine.date,
            "cpu": self.machine.cpu,
            "processors": self.machine.processors,
            "busy": self.lost_to_others().is_some(),
            "kdf": self.derivations.iter().map(derivation_json).collect::<Value>(),
            "ciphers": self.speeds.iter().map(speed_json).collect::<Value>(),
        })
    }

    /// By how many per cent the typical median is below the best, if the difference is so large
    /// that the figures cannot be trusted.
    #[must_use]
    pub fn lost_to_others(&self) -> Option<u64> {
        let mut lost: Vec<u64> = self.speeds.iter().map(Speed::lost).collect();
        lost.sort_unstable();
        lost.get(lost.len() / 2)
            .copied()
            .filter(|percent| *percent >= 8)
    }
}

fn speed_json(speed: &Speed) -> Value {
    let subject = &speed.subject;
    json!({
        "cipher": subject.spec.to_string(),
        "key_bits": subject.key_size * 8,
        "sector_size": subject.sector_size,
        "kernel": subject.kernel.map(Kernel::name),
        "threads": subject.threads,
        "encrypt": speed.encrypt.best,
        "encrypt_median": speed.encrypt.median,
        "decrypt": speed.decrypt.best,
        "decrypt_median": speed.decrypt.median,
        "limit": speed.limit.as_ref().map(|limit| limit.best),
    })
}

fn derivation_json(derivation: &Derivation) -> Value {
    match derivation {
        Derivation::Pbkdf2 { hash, rate } => json!({
            "type": "pbkdf2",
            "hash": hash.name(),
            "iterations_per_second": rate,
            "passes": null,
            "memory": null,
            "threads": null,
            "time_ms": null,
        }),
        Derivation::Argon2 { cost, took, .. } => json!({
            "type": cost.variant.name(),
            "hash": null,
            "iterations_per_second": null,
            "passes": cost.passes,
            "memory": u64::from(cost.memory_kib) * 1024,
            "threads": cost.lanes,
            "time_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }),
    }
}
