//! Key derivation: PBKDF2 (RFC 8018), argon2 (RFC 9106), and the calibration of their costs. Also
//! the anti-forensic splitter (LUKS1 specification, section 2.4).
//!
//! Every derivation checks an [`Interrupt`] regularly, and wipes its working memory when it ends,
//! also after its caller has given up waiting. [`derive()`] checks the costs in a header against
//! [`Limits`] before it does any work.

pub mod af;
mod argon2;
pub mod calibrate;
mod pbkdf2;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use argon2::{Argon2Cost, argon2};
pub use pbkdf2::pbkdf2;

use luksmith_formats::luks2::Kdf;
use luksmith_formats::{FormatError, Limits};

use crate::Interrupt;
use crate::secret::{LockError, LockedBytes, Passphrase, SecretError};

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

/// Why a derivation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KdfError {
    /// The header asks for more work than the limits allow. The field of the error says which
    /// limit: `kdf.memory`, `kdf.cpus`, `kdf.time` or `kdf.iterations`.
    #[error(transparent)]
    OverLimit(#[from] FormatError),
    /// The interrupt was set.
    #[error("interrupted")]
    Interrupted,
    /// The memory for argon2 could not be allocated.
    #[error("{kib} KiB of memory for argon2 could not be allocated")]
    Memory {
        /// The requested size in KiB.
        kib: u32,
        /// The error of the kernel.
        source: std::io::Error,
    },
    /// A thread for argon2 could not be started, or ended without a result.
    #[error("no thread for argon2")]
    Thread(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Parameters that the function does not allow.
    #[error("parameters that {function} does not allow: {cause}")]
    Parameters {
        /// The function.
        function: &'static str,
        /// What is wrong with the parameters.
        cause: String,
    },
    /// The key material has the wrong length for the anti-forensic splitter.
    #[error("{stripes} stripes of a {key_len}-byte key are not {material} bytes")]
    Material {
        /// Length of the key in bytes.
        key_len: usize,
        /// Number of stripes.
        stripes: u32,
        /// Length of the material in bytes.
        material: usize,
    },
    /// Locked memory for the derived key could not be allocated.
    #[error("the derived key cannot be held in locked memory")]
    Lock(#[from] LockError),
    /// The random bytes of the stripes could not be generated.
    #[error("no random bytes for the stripes of the key material")]
    Random(#[source] SecretError),
}
