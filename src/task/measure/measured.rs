//! What a benchmark measured.

use super::ciphers::Speed;
use super::derivations::Derivation;
use super::machine::Machine;

/// Everything that was measured.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Measured {
    /// The version of luksmith.
    pub version: String,
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
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: Machine::look(),
            derivations: Vec::new(),
            speeds: Vec::new(),
        }
    }

    /// How many of all measurements are busy, with their number.
    #[must_use]
    pub fn busy(&self) -> (usize, usize) {
        let derivations = self.derivations.iter().map(|one| one.busy);
        let all = derivations.chain(self.speeds.iter().map(Speed::is_busy));
        let all: Vec<bool> = all.collect();
        (all.iter().filter(|busy| **busy).count(), all.len())
    }

    /// Whether half of the measurements or more are busy, so that no figure can be trusted.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let (busy, all) = self.busy();
        all > 0 && 2 * busy >= all
    }
}
