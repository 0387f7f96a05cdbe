//! Why a derivation failed.

use luksmith_formats::FormatError;

use crate::feature::MissingFeature;
use crate::secret::{LockError, SecretError};

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
    /// The hash needs a feature of this crate that is not enabled.
    #[error(transparent)]
    MissingFeature(#[from] MissingFeature),
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
