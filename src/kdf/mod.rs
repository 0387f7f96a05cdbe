//! Key derivation: PBKDF2 (RFC 8018), argon2 (RFC 9106), and the calibration of their costs. Also
//! the anti-forensic splitter (LUKS1 specification, section 2.4).
//!
//! Every derivation checks an [`Interrupt`] regularly, and wipes its working memory when it ends,
//! also after its caller has given up waiting. [`derive()`] checks the costs in a header against
//! [`Limits`] before it does any work.

pub mod af;
mod argon2;
pub mod calibrate;
mod error;
mod hashes;
mod pbkdf2;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use argon2::{Argon2Cost, argon2};
pub use error::KdfError;
pub(crate) use hashes::{HashFunction, check_built};
pub use pbkdf2::pbkdf2;

use luksmith_formats::Limits;
use luksmith_formats::luks2::Kdf;

use crate::Interrupt;
use crate::secret::{LockedBytes, Passphrase};

/// Derives `out_len` bytes from a passphrase, with the KDF of a keyslot.
///
/// # Errors
/// Returns [`KdfError::OverLimit`], before any work, if the keyslot asks for more than `limits`
/// allow. Otherwise returns the errors of [`pbkdf2`] and [`argon2`].
pub fn derive(
    kdf: &Kdf,
    passphrase: &Passphrase,
    out_len: usize,
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<LockedBytes, KdfError> {
    limits.check_kdf(kdf)?;
    match kdf {
        Kdf::Pbkdf2 {
            hash,
            iterations,
            salt,
        } => {
            let mut out = LockedBytes::new(out_len)?;
            let passphrase = passphrase.as_bytes();
            pbkdf2(*hash, passphrase, salt, *iterations, &mut out, interrupt)?;
            Ok(out)
        }
        Kdf::Argon2 {
            variant,
            passes,
            memory_kib,
            lanes,
            salt,
        } => {
            let cost = Argon2Cost {
                variant: *variant,
                passes: *passes,
                memory_kib: *memory_kib,
                lanes: *lanes,
            };
            argon2(cost, passphrase.as_bytes(), salt, out_len, interrupt)
        }
    }
}
