//! What is rotated, and how.

use std::path::PathBuf;

use luksmith_formats::limits::Limits;

use crate::secret::SecretSource;
use crate::task::cost::CostOptions;
use crate::task::storage::Remote;
use crate::trust::TrustDir;

/// The volumes to rotate or to check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selection {
    /// All volumes that this libvirt knows.
    pub all: bool,
    /// Domains, by name or UUID, with all their encrypted disks, and images, by path.
    pub targets: Vec<String>,
    /// Pools, with all their encrypted volumes.
    pub pools: Vec<String>,
}

/// How secrets are rotated.
#[non_exhaustive]
pub struct RotateOptions<'a> {
    /// The directory of the journals. While a secret is rotated, its journal lists the keyslots and
    /// secrets that the rotation uses, and the stage that it has reached. It contains nothing
    /// secret. An interrupted rotation is completed by rotating the secret again with the same
    /// directory.
    pub journals: PathBuf,
    /// The present passphrase of a private secret, whose value libvirt does not return. It is also
    /// tried where the value of a secret does not open its volumes.
    pub key: Option<&'a dyn SecretSource>,
    /// The new passphrase, for a selection with one secret. By default each secret gets a random
    /// one.
    pub new_key: Option<&'a dyn SecretSource>,
    /// The cost of opening the new keyslots.
    pub cost: CostOptions,
    /// The limits on the cost of the key derivation of a present keyslot.
    pub limits: Limits,
    /// How a volume on an NBD server is reached.
    pub remote: Remote,
    /// The pins of the volumes, all of which have to be pinned then.
    pub trust: Option<TrustDir>,
}

impl Selection {
    /// All volumes that a libvirt knows.
    #[must_use]
    pub fn all() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// One domain, by name or UUID, or one image, by path.
    #[must_use]
    pub fn one(target: impl Into<String>) -> Self {
        Self {
            targets: vec![target.into()],
            ..Self::default()
        }
    }
}

impl RotateOptions<'_> {
    /// The defaults, with this directory of journals.
    #[must_use]
    pub fn new(journals: impl Into<PathBuf>) -> Self {
        Self {
            journals: journals.into(),
            key: None,
            new_key: None,
            cost: CostOptions::default(),
            limits: Limits::default(),
            remote: Remote::default(),
            trust: None,
        }
    }
}
