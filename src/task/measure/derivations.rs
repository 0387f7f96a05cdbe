//! Measures how much work key derivations do on this machine.

use std::time::Duration;

use luksmith_formats::hash::Hash;

use crate::Interrupt;
use crate::kdf::Argon2Cost;
use crate::kdf::calibrate::{Cost, KdfKind, Target, argon2_time, calibrate, pbkdf2_rate};
use crate::task::{Error, Kind};

/// The hash functions that PBKDF2 is measured with.
pub const HASHES: [Hash; 5] = [
    Hash::Sha1,
    Hash::Sha256,
    Hash::Sha512,
    Hash::Ripemd160,
    Hash::Whirlpool,
];

/// The size of the key that is derived, in bytes, as by `cryptsetup benchmark`.
pub const DERIVED: usize = 32;

/// What was measured of one key derivation.
#[derive(Debug, Clone)]
pub enum Derivation {
    /// PBKDF2.
    Pbkdf2 {
        /// The hash function.
        hash: Hash,
        /// Iterations a second.
        rate: u32,
    },
    /// Argon2.
    Argon2 {
        /// What a new keyslot would get for the requested time.
        cost: Argon2Cost,
        /// How long one derivation of that cost took.
        took: Duration,
        /// The requested time in milliseconds.
        requested_ms: u32,
    },
}

impl Derivation {
    /// Measures PBKDF2.
    ///
    /// # Errors
    /// [`Kind::Memory`], [`Kind::Interrupted`].
    pub fn pbkdf2(hash: Hash, interrupt: &Interrupt) -> Result<Self, Error> {
        let rate = pbkdf2_rate(hash, DERIVED, interrupt)?;
        Ok(Self::Pbkdf2 { hash, rate })
    }

    /// Measures argon2id, with the parameters that a new keyslot would get for this time.
    ///
    /// # Errors
    /// [`Kind::Memory`], [`Kind::Interrupted`].
    pub fn argon2id(requested_ms: u32, interrupt: &Interrupt) -> Result<Self, Error> {
        let target = Target::new(KdfKind::Argon2id, DERIVED)
            .time(Duration::from_millis(requested_ms.into()));
        let Cost::Argon2(cost) = calibrate(&target, interrupt)? else {
            let message = "the calibration answered with another function";
            return Err(Error::new(Kind::Storage, message));
        };
        Ok(Self::Argon2 {
            cost,
            took: argon2_time(cost, DERIVED, interrupt)?,
            requested_ms,
        })
    }
}
