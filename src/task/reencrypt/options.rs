//! What a reencryption changes, and how.

use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::hash::Hash;

use crate::container::Container;
use crate::task::Error;
use crate::task::cost::CostOptions;

/// The largest zone that can be asked for, in bytes. A zone is in memory as a whole.
pub(super) const LARGEST_ZONE: u64 = 64 << 20;

/// What a reencryption changes, and how. `None` keeps what the volume has, and of a reencryption
/// that is in progress also what it began with.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// The new cipher.
    pub cipher: Option<CipherSpec>,
    /// The size of the new volume key, in bytes.
    pub key_size: Option<usize>,
    /// The new encryption sector size, in bytes.
    pub sector_size: Option<u32>,
    /// The hash of the new digest and of the anti-forensic splitter.
    pub hash: Option<Hash>,
    /// The cost of the new keyslots.
    pub cost: CostOptions,
    /// How a zone survives an interruption.
    pub protection: Option<Protection>,
    /// The hash of checksums.
    pub checksum_hash: Option<Hash>,
    /// The largest zone, in bytes.
    pub zone: Option<u64>,
    /// The most bytes that are converted in a second.
    pub rate: Option<u64>,
    /// Only goes on with a reencryption that is in progress.
    pub only_resume: bool,
    /// Only prepares the header, and converts nothing.
    pub only_begin: bool,
    /// Removes keyslots that no given passphrase opens.
    pub drop_others: bool,
    /// Goes on although a block of an interrupted zone is neither old nor converted.
    pub unverified_blocks: bool,
}

impl Options {
    /// Refuses what is wrong with any volume, or with this one.
    pub(super) fn check(&self, container: &Container) -> Result<(), Error> {
        self.cost.check(container)?;
        if self.zone.is_some_and(|zone| zone > LARGEST_ZONE) {
            let message = format!("zone-size: at most {} MiB", LARGEST_ZONE >> 20);
            return Err(Error::parameters(message));
        }
        Ok(())
    }
}

/// How a zone survives an interruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protection {
    /// By checksums of its blocks, which the storage has to write atomically.
    Checksum,
    /// By a copy of its old ciphertext.
    Journal,
}
