//! The cost of opening a new keyslot.

use std::time::Duration;

use clap::Args;
use luksmith::task::cost::{CostOptions, Function};

use super::{Choice, choice};

const FUNCTIONS: &[Choice<Function>] = &[
    ("argon2id", "", Function::Argon2id),
    ("argon2i", "", Function::Argon2i),
    ("pbkdf2", "", Function::Pbkdf2),
];

/// The key derivation of a new keyslot.
#[derive(Debug, Args)]
#[command(next_help_heading = "Key derivation")]
pub(crate) struct PbkdfArgs {
    /// The key derivation [default: argon2id for LUKS2; LUKS1 has only pbkdf2]
    #[arg(long, value_name = "KDF", value_parser = choice(FUNCTIONS))]
    pub(crate) pbkdf: Option<Function>,

    /// The time that opening the keyslot takes on this machine
    #[arg(short, long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) iter_time: u32,

    /// The cost, which is then not measured: iterations of pbkdf2, or passes of argon2
    #[arg(long, value_name = "N", conflicts_with = "iter_time", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pbkdf_force_iterations: Option<u32>,

    /// The maximum memory of argon2 in KiB [default: 1048576, or half of the machine's memory if
    /// that is less]
    #[arg(long, value_name = "KIB", value_parser = clap::value_parser!(u32).range(32..))]
    pub(crate) pbkdf_memory: Option<u32>,

    /// The maximum number of argon2 threads [default: 4, or the number of online CPUs if that is
    /// less]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) pbkdf_parallel: Option<u32>,
}

impl PbkdfArgs {
    pub(crate) fn get(&self) -> CostOptions {
        let mut cost = CostOptions::default();
        cost.function = self.pbkdf;
        cost.time = Duration::from_millis(self.iter_time.into());
        cost.iterations = self.pbkdf_force_iterations;
        cost.memory_kib = self.pbkdf_memory;
        cost.lanes = self.pbkdf_parallel;
        cost
    }
}
