//! Measurements of this machine: ciphers in memory, key derivations. No storage takes part.

mod ciphers;
mod derivations;
mod machine;

pub use ciphers::{Rate, Speed, Subject, ciphers};
pub use derivations::{DERIVED, Derivation, HASHES};
pub use machine::Machine;
