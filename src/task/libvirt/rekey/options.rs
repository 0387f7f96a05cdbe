//! How disks get new volumes.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use luksmith_formats::limits::Limits;

use crate::secret::SecretSource;
use crate::task::cost::CostOptions;
use crate::task::storage::Remote;

/// How disks get new volumes.
#[non_exhaustive]
pub struct RekeyOptions<'a> {
    /// The directory of the journals. While a disk gets a new volume, its journal has the names of
    /// the volumes and the secrets, and the stage that was reached. It contains nothing secret. An
    /// interrupted run is completed by another one with the same directory.
    pub journals: PathBuf,
    /// The pool in which the new volumes are made. By default it is that of the old volume, or for
    /// a file in no pool its folder.
    pub pool: Option<String>,
    /// The passphrase of volumes whose secret is private. It is needed only while the domain is
    /// shut off.
    pub key: Option<&'a dyn SecretSource>,
    /// Whether the old volume and its secret stay as they are.
    pub keep_old: bool,
    /// How many disks are copied at the same time.
    pub at_once: NonZeroUsize,
    /// The most bytes per second that QEMU copies for one disk. By default there is no limit.
    pub rate: Option<u64>,
    /// The cost of opening the new keyslots.
    pub cost: CostOptions,
    /// The limits on the cost of the key derivation of a present keyslot.
    pub limits: Limits,
    /// How a volume on an NBD server is reached.
    pub remote: Remote,
}

impl RekeyOptions<'_> {
    /// The defaults, with this directory of journals.
    #[must_use]
    pub fn new(journals: impl Into<PathBuf>) -> Self {
        Self {
            journals: journals.into(),
            pool: None,
            key: None,
            keep_old: false,
            at_once: NonZeroUsize::MIN,
            rate: None,
            cost: CostOptions::default(),
            limits: Limits::default(),
            remote: Remote::default(),
        }
    }
}
