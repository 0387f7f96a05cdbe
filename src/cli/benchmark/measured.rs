//! What a benchmark measured.

use luksmith::task::measure::{Derivation, Machine, Speed};
use luksmith_formats::json::{Value, json};

use super::shown;

/// Everything that was measured.
pub(super) struct Measured {
    pub(super) machine: Machine,
    pub(super) derivations: Vec<Derivation>,
    pub(super) speeds: Vec<Speed>,
}

impl Measured {
    pub(super) fn json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "date": self.machine.date,
            "cpu": self.machine.cpu,
            "processors": self.machine.processors,
            "busy": self.lost_to_others().is_some(),
            "kdf": self.derivations.iter().map(shown::derivation_json).collect::<Value>(),
            "ciphers": self.speeds.iter().map(shown::speed_json).collect::<Value>(),
        })
    }

    /// By how many per cent the typical median is below the best, if the difference is so large
    /// that the figures cannot be trusted.
    pub(super) fn lost_to_others(&self) -> Option<u64> {
        let mut lost: Vec<u64> = self.speeds.iter().map(Speed::lost).collect();
        lost.sort_unstable();
        lost.get(lost.len() / 2)
            .copied()
            .filter(|percent| *percent >= 8)
    }
}
