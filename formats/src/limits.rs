//! Limits on the cost and size that an untrusted header may ask for.
//!
//! A header states the cost of its own key derivation, so the author of a header decides how long
//! an unlock takes and how much memory it needs. 2³¹−1 PBKDF2 iterations take minutes, and an
//! argon2 memory cost of 64 GiB takes the whole machine. A header over a cost limit can still be
//! read: the cost is refused immediately before the derivation.

use alloc::format;

use crate::error::FormatError;
use crate::luks2::Kdf;

/// The limits. The defaults are far above the costs that cryptsetup's calibration chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Most memory for one argon2 derivation, in KiB. Default: 4 GiB.
    pub argon2_memory_kib: u32,
    /// Most work for one argon2 derivation: memory times passes, in KiB. Default: 64 GiB.
    pub argon2_work_kib: u64,
    /// Most lanes (threads) for one argon2 derivation. Default: 16.
    pub argon2_lanes: u32,
    /// Most iterations for one PBKDF2 derivation. Default: 100 million.
    pub pbkdf2_iterations: u32,
    /// Largest size of one copy of the LUKS2 metadata (binary header and JSON), in bytes. Default:
    /// 4 MiB, the maximum of the format.
    pub metadata_size: u64,
    /// Largest size of the keyslots area, in bytes. For LUKS1 it limits the offset at which the
    /// last key material ends. Default: 128 MiB, the maximum of LUKS2.
    pub keyslots_size: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            argon2_memory_kib: 4 << 20,
            argon2_work_kib: 64 << 20,
            argon2_lanes: 16,
            pbkdf2_iterations: 100_000_000,
            metadata_size: 4 << 20,
            keyslots_size: 128 << 20,
        }
    }
}

impl Limits {
    /// Checks the costs of a derivation.
    ///
    /// # Errors
    /// Returns a [`FormatError`] of kind [`OverLimit`](crate::Kind::OverLimit) that names the cost
    /// which is over its limit: `kdf.memory`, `kdf.cpus`, `kdf.time` or `kdf.iterations`.
    pub fn check_kdf(&self, kdf: &Kdf) -> Result<(), FormatError> {
        match kdf {
            Kdf::Pbkdf2 { iterations, .. } => self.check_pbkdf2(*iterations),
            Kdf::Argon2 {
                passes,
                memory_kib,
                lanes,
                ..
            } => {
                within(
                    "kdf.memory",
                    u64::from(*memory_kib),
                    u64::from(self.argon2_memory_kib),
                    "KiB of argon2 memory",
                )?;
                within(
                    "kdf.cpus",
                    u64::from(*lanes),
                    u64::from(self.argon2_lanes),
                    "argon2 lanes",
                )?;
                let work = u64::from(*memory_kib).saturating_mul(u64::from(*passes));
                within(
                    "kdf.time",
                    work,
                    self.argon2_work_kib,
                    "KiB of argon2 work (memory times passes)",
                )
            }
        }
    }

    /// Checks a PBKDF2 iteration count, of a LUKS1 keyslot or of a digest of either version.
    ///
    /// # Errors
    /// Returns a [`FormatError`] of kind [`OverLimit`](crate::Kind::OverLimit) for the field
    /// `kdf.iterations`.
    pub fn check_pbkdf2(&self, iterations: u32) -> Result<(), FormatError> {
        let limit = u64::from(self.pbkdf2_iterations);
        within(
            "kdf.iterations",
            u64::from(iterations),
            limit,
            "PBKDF2 iterations",
        )
    }
}

fn within(field: &str, asked: u64, limit: u64, unit: &str) -> Result<(), FormatError> {
    if asked <= limit {
        return Ok(());
    }
    let cause = format!("asks for {asked} {unit}; the limit is {limit}");
    Err(FormatError::over_limit(field, 0, cause))
}
