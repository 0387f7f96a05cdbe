//! Measurements of this machine: ciphers in memory, key derivations. No storage takes part.
//!
//! [`Selection`] says what to measure, and [`Measured`] is the result: as JSON, as CSV, as a
//! table, beside an older one, and with the feature `cli` as a chart.

#[cfg(feature = "cli")]
pub mod chart;
mod ciphers;
mod compare;
mod csv;
mod derivations;
mod json;
mod machine;
mod measured;
mod selection;
mod statistics;
mod text;

pub use ciphers::{BUFFER, Speed, Subject, ciphers};
pub use compare::Compared;
pub use derivations::{DERIVED, Derivation, Function, HASHES};
pub use machine::Machine;
#[cfg(feature = "s3")]
pub(super) use machine::time_text;
pub use measured::Measured;
pub use selection::{Part, Selection};
pub use statistics::{Ratio, Spread};
pub use text::Table;
