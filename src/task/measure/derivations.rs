//! Measures how much work key derivations do on this machine.

use std::time::{Duration, Instant};

use luksmith_formats::hash::Hash;

use super::statistics::{Lap, Spread, speed};
use crate::Interrupt;
use crate::kdf::calibrate::{Cost, KdfKind, Target, argon2_time, calibrate};
use crate::kdf::{Argon2Cost, pbkdf2};
use crate::sys::process::thread_time;
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

/// How long one run of PBKDF2 takes at least.
const RUN: Duration = Duration::from_millis(25);
/// How often PBKDF2 runs.
const RUNS: usize = 10;
/// How often argon2 runs. Each run takes the requested time.
const ARGON2_RUNS: usize = 3;

/// The machine is busy if a derivation had its processors for less than this part of the time. An
/// idle machine takes some of it for the memory of argon2.
const SHARE: f64 = 0.8;

/// What was measured of one key derivation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Derivation {
    /// The size of the derived key in bytes.
    pub key_size: usize,
    /// The function, and its speed.
    pub function: Function,
    /// Whether the machine had other work meanwhile, so that the figure cannot be trusted: the runs
    /// differ, or all of them had to wait for a processor.
    pub busy: bool,
}

/// A key derivation function and its speed.
#[derive(Debug, Clone)]
pub enum Function {
    /// PBKDF2.
    Pbkdf2 {
        /// The hash function.
        hash: Hash,
        /// Iterations a second.
        rate: Spread,
    },
    /// Argon2.
    Argon2 {
        /// What a new keyslot would get for the requested time.
        cost: Argon2Cost,
        /// How long a derivation of that cost took, in microseconds.
        took: Spread,
        /// The requested time in milliseconds.
        requested_ms: u32,
    },
}

impl Derivation {
    /// Measures PBKDF2 for a key of `key_size` bytes.
    ///
    /// # Errors
    /// [`Kind::Memory`], [`Kind::Interrupted`].
    pub fn pbkdf2(hash: Hash, key_size: usize, interrupt: &Interrupt) -> Result<Self, Error> {
        let mut out = vec![0; key_size];
        let (epoch, ran_before) = (Instant::now(), thread_time());
        let mut run = |iterations: u32| -> Result<Lap, Error> {
            let begin = epoch.elapsed();
            let salt = b"0123456789abcdef0123456789abcdef";
            pbkdf2(hash, b"benchmark", salt, iterations, &mut out, interrupt)?;
            Ok(Lap {
                begin,
                end: epoch.elapsed(),
                work: iterations.into(),
            })
        };
        let mut iterations = 1000;
        loop {
            let lap = run(iterations)?;
            if lap.end - lap.begin >= RUN || iterations > u32::MAX / 2 {
                break;
            }
            iterations *= 2;
        }
        let mut rates = Vec::new();
        for _ in 0..RUNS {
            rates.push(speed(&[run(iterations)?]));
        }
        let rate = Spread::of_speeds(rates);
        let ran = thread_time().saturating_sub(ran_before);
        let share = ran.as_secs_f64() / epoch.elapsed().as_secs_f64().max(1e-9);
        Ok(Self {
            key_size,
            function: Function::Pbkdf2 { hash, rate },
            busy: is_busy(&rate, share),
        })
    }

    /// Measures argon2id for a key of `key_size` bytes, with the parameters that a new keyslot
    /// would get for this time.
    ///
    /// # Errors
    /// [`Kind::Memory`], [`Kind::Interrupted`].
    pub fn argon2id(
        requested_ms: u32,
        key_size: usize,
        interrupt: &Interrupt,
    ) -> Result<Self, Error> {
        let target = Target::new(KdfKind::Argon2id, key_size)
            .time(Duration::from_millis(requested_ms.into()));
        let Cost::Argon2(cost) = calibrate(&target, interrupt)? else {
            let message = "the calibration answered with another function";
            return Err(Error::new(Kind::Storage, message));
        };
        let (mut times, mut least) = (Vec::new(), 1.0_f64);
        for _ in 0..ARGON2_RUNS {
            let (time, share) = argon2_time(cost, key_size, interrupt)?;
            times.push(time);
            least = least.min(share);
        }
        let took = Spread::of_times(&times);
        Ok(Self {
            key_size,
            function: Function::Argon2 {
                cost,
                took,
                requested_ms,
            },
            busy: is_busy(&took, least),
        })
    }

    /// The name of the function and its hash, such as `pbkdf2-sha256`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.function {
            Function::Pbkdf2 { hash, .. } => format!("pbkdf2-{hash}"),
            Function::Argon2 { cost, .. } => cost.variant.name().to_owned(),
        }
    }

    /// What was measured: iterations a second of PBKDF2, microseconds of argon2.
    #[must_use]
    pub fn spread(&self) -> &Spread {
        match &self.function {
            Function::Pbkdf2 { rate, .. } => rate,
            Function::Argon2 { took, .. } => took,
        }
    }
}

/// Whether the machine had other work: the runs differ, or a derivation had its processors for no
/// more than this part of the time, so that all runs may be equally slow.
fn is_busy(runs: &Spread, share: f64) -> bool {
    runs.is_busy() || share < SHARE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_are_equally_slow_are_busy_too() {
        let even = Spread::of_times(&[Duration::from_millis(900); 3]);
        assert!(!is_busy(&even, 0.95));
        assert!(is_busy(&even, 0.6));
        let uneven = Spread::of_times(&[900, 500, 900].map(Duration::from_millis));
        assert!(is_busy(&uneven, 1.0));
    }
}
