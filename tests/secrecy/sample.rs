//! Containers of which the test knows every secret, and keeps it in locked memory only.

use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::Backend;
use luksmith::container::{Container, CreateOptions, NewKeyslot, OpenOptions, Unlocked, Version};
use luksmith::kdf::Argon2Cost;
use luksmith::kdf::calibrate::Cost;
use luksmith::secret::{LockedBytes, Passphrase, VolumeKey};
use luksmith_formats::luks2::Argon2Variant;
use luksmith_formats::{CipherSpec, Hash};

/// Cheap costs. The time of a derivation does not change what it leaves in memory.
pub(crate) const PBKDF2: Cost = Cost::Pbkdf2 {
    hash: Hash::Sha256,
    iterations: 1000,
};
pub(crate) const ARGON2ID: Cost = Cost::Argon2(Argon2Cost {
    variant: Argon2Variant::Id,
    passes: 4,
    memory_kib: 256,
    lanes: 2,
});

/// The size of the data of volumes with [`options`].
pub(crate) const DATA: u64 = 1 << 20;

pub(crate) fn copy(bytes: &[u8]) -> LockedBytes {
    LockedBytes::copy_from(bytes).unwrap()
}

/// The smallest container of this version with room for several keyslots. LUKS1 has no gap before
/// its data.
pub(crate) fn options(
    version: Version,
    cost: Cost,
    cipher: &str,
    volume_key: &[u8],
) -> CreateOptions {
    let mut options = CreateOptions::new(version, cost);
    options.cipher = CipherSpec::parse(cipher).unwrap();
    options.key_size = volume_key.len();
    options.volume_key = Some(VolumeKey::from_locked(copy(volume_key)));
    options.data_offset = (version == Version::Luks2).then_some(1 << 20);
    options
}

pub(crate) fn create(
    storage: Arc<dyn Backend>,
    options: CreateOptions,
    open: OpenOptions,
    passphrase: &[u8],
) -> (Container, Unlocked) {
    let passphrase = Passphrase::from_locked(copy(passphrase));
    Container::create(storage, options, open, &passphrase, &Interrupt::new()).unwrap()
}

pub(crate) fn new_keyslot(passphrase: &Passphrase, kdf: Cost) -> NewKeyslot<'_> {
    NewKeyslot::new(passphrase, kdf)
}
