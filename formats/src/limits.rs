//! Caps on what an untrusted header may ask for.
//!
//! A header states its own KDF cost, so whoever writes a header decides how long and with how much memory an
//! unlock runs: 2³¹−1 PBKDF2 iterations take minutes, and 64 GiB of argon2 the whole machine. Costs over the
//! limit do not make a header unreadable; they are refused just before deriving.

use alloc::format;

use crate::error::FormatError;
use crate::luks2::Kdf;

/// The caps. The defaults are far above what cryptsetup's own calibration chooses, and can be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory of one argon2 derivation, in KiB. Default: 4 GiB.
    pub argon2_memory_kib: u32,
    /// Memory times passes of one argon2 derivation, in KiB. Default: 64 GiB.
    pub argon2_work_kib: u64,
    /// Lanes (threads) of one argon2 derivation. Default: 16.
    pub argon2_lanes: u32,
    /// Iterations of one PBKDF2 derivation. Default: 100 million.
    pub pbkdf2_iterations: u32,
    /// Size of one copy of the LUKS2 metadata (binary header and JSON), in bytes. Default: 4 MiB, which is the
    /// largest that the format has.
    pub metadata_size: u64,
    /// Size of the keyslots area, in bytes; for LUKS1, where the last key material may end. Default: 128 MiB,
    /// which is the largest that LUKS2 has.
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
    /// Refuses a derivation that costs too much, naming the cost that does.
    ///
    /// # Errors
    /// [`FormatError`] of the kind over limit, with the field that costs too much.
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

    /// Refuses a PBKDF2 iteration count that costs too much (LUKS1 keyslots, and digests of both versions).
    ///
    /// # Errors
    /// [`FormatError`] of the kind over limit, with the field `kdf.iterations`.
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
