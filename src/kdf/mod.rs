//! From a passphrase to the key of a keyslot: PBKDF2 (RFC 8018), argon2 (RFC 9106), the anti-forensic splitter
//! (LUKS1 specification, section 2.4), and how much work a new keyslot should cost.
//!
//! Every derivation looks at an [`Interrupt`]; what it worked on is wiped when it ends, also when nobody waits for
//! it any more. A header's costs are checked against [`Limits`] before any work.

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

/// Derives `out_len` bytes as a keyslot prescribes.
///
/// # Errors
/// [`KdfError::OverLimit`] before any work, when the keyslot asks for more than `limits` allow; the others as they
/// come up.
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

/// Why a derivation gave no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KdfError {
    /// The header asks for more work than the limits allow; the field (`kdf.memory`, `kdf.cpus`, `kdf.time`,
    /// `kdf.iterations`) says which.
    #[error(transparent)]
    OverLimit(#[from] FormatError),
    /// The interrupt was set.
    #[error("interrupted")]
    Interrupted,
    /// The memory that argon2 needs could not be had.
    #[error("{kib} KiB of memory for argon2 could not be had")]
    Memory {
        /// How much was wanted.
        kib: u32,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// No threads could be started for argon2.
    #[error("no thread for argon2")]
    Thread(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Parameters with which the function is not defined.
    #[error("parameters that {function} does not allow: {cause}")]
    Parameters {
        /// The function.
        function: &'static str,
        /// What is wrong with them.
        cause: String,
    },
    /// Key material of the wrong length for the anti-forensic splitter.
    #[error("{stripes} stripes of a {key_len}-byte key are not {material} bytes")]
    Material {
        /// Length of the key in bytes.
        key_len: usize,
        /// Number of stripes.
        stripes: u32,
        /// Length of the material in bytes.
        material: usize,
    },
    /// Locked memory could not be had.
    #[error("the derived key cannot be held safely")]
    Lock(#[from] LockError),
    /// No random bytes for the stripes.
    #[error("no random stripes for the key material")]
    Random(#[source] SecretError),
}
