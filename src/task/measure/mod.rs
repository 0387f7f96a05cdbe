//! Measurements of this machine: ciphers in memory, key derivations. No storage takes part.

#[cfg(feature = "cli")]
pub mod chart;
mod ciphers;
mod derivations;
mod machine;
mod measured;
mod selection;

pub use ciphers::{Rate, Speed, Subject, ciphers};
pub use derivations::{DERIVED, Derivation, HASHES};
pub use machine::Machine;
pub use measured::Measured;
pub use selection::{Part, Selection};
