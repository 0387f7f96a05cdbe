//! Limits on the cost of a key derivation that a header states.

use clap::Args;
use luksmith_formats::limits::Limits;

use crate::cli::size;

/// A header states the cost of its own key derivation. Above these limits it is refused before any
/// work.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits on the key derivation that a header states")]
pub(crate) struct LimitArgs {
    /// Memory of one argon2 derivation [default: 4G]
    #[arg(long, value_name = "SIZE", value_parser = size::parse_kib)]
    max_kdf_memory: Option<u32>,

    /// Memory times passes of one argon2 derivation [default: 64G]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    max_kdf_work: Option<u64>,

    /// Threads of one argon2 derivation [default: 16]
    #[arg(long, value_name = "N")]
    max_kdf_lanes: Option<u32>,

    /// Iterations of one PBKDF2 derivation [default: 100000000]
    #[arg(long, value_name = "N")]
    max_kdf_iterations: Option<u32>,
}

impl LimitArgs {
    pub(crate) fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        if let Some(kib) = self.max_kdf_memory {
            limits.argon2_memory_kib = kib;
        }
        if let Some(bytes) = self.max_kdf_work {
            limits.argon2_work_kib = bytes / 1024;
        }
        if let Some(lanes) = self.max_kdf_lanes {
            limits.argon2_lanes = lanes;
        }
        if let Some(iterations) = self.max_kdf_iterations {
            limits.pbkdf2_iterations = iterations;
        }
        limits
    }
}
