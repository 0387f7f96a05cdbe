//! How much work key derivations do here.

use std::fmt;
use std::time::Duration;

use luksmith::Interrupt;
use luksmith::kdf::Argon2Cost;
use luksmith::kdf::calibrate::{Cost, KdfKind, Target, argon2_time, calibrate, pbkdf2_rate};
use luksmith_formats::hash::Hash;
use serde_json::{Value, json};

use crate::cli::error::{CommandError, Kind};

pub(super) const HASHES: [Hash; 5] = [
    Hash::Sha1,
    Hash::Sha256,
    Hash::Sha512,
    Hash::Ripemd160,
    Hash::Whirlpool,
];

/// The key that is derived, as cryptsetup's.
const DERIVED: usize = 32;

pub(super) enum Derivation {
    Pbkdf2 {
        hash: Hash,
        /// Iterations a second.
        rate: u32,
    },
    Argon2 {
        cost: Argon2Cost,
        took: Duration,
        requested_ms: u32,
    },
}

impl Derivation {
    pub(super) fn pbkdf2(hash: Hash, interrupt: &Interrupt) -> Result<Self, CommandError> {
        let rate = pbkdf2_rate(hash, DERIVED, interrupt)?;
        Ok(Self::Pbkdf2 { hash, rate })
    }

    /// With the parameters that a new keyslot would get for this time.
    pub(super) fn argon2id(requested_ms: u32, interrupt: &Interrupt) -> Result<Self, CommandError> {
        let mut target = Target::new(KdfKind::Argon2id, DERIVED);
        target.time = Duration::from_millis(requested_ms.into());
        let Cost::Argon2(cost) = calibrate(&target, interrupt)? else {
            let message = "the calibration answered with another function";
            return Err(CommandError::new(Kind::Storage, message));
        };
        Ok(Self::Argon2 {
            cost,
            took: argon2_time(cost, DERIVED, interrupt)?,
            requested_ms,
        })
    }

    pub(super) fn json(&self) -> Value {
        match self {
            Self::Pbkdf2 { hash, rate } => json!({
                "type": "pbkdf2",
                "hash": hash.name(),
                "iterations_per_second": rate,
            }),
            Self::Argon2 { cost, took, .. } => json!({
                "type": cost.variant.name(),
                "passes": cost.passes,
                "memory": u64::from(cost.memory_kib) * 1024,
                "threads": cost.lanes,
                "time_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }
}

impl fmt::Display for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = DERIVED * 8;
        match self {
            Self::Pbkdf2 { hash, rate } => {
                let name = format!("pbkdf2-{hash}");
                write!(
                    f,
                    "{name:<17} {rate:>10} iterations per second for {bits}-bit key"
                )
            }
            Self::Argon2 {
                cost,
                took,
                requested_ms,
            } => write!(
                f,
                "{:<17} {} passes, {} KiB memory, {} threads for {bits}-bit key: {} ms (requested {requested_ms} ms)",
                cost.variant.name(),
                cost.passes,
                cost.memory_kib,
                cost.lanes,
                took.as_millis(),
            ),
        }
    }
}
