//! After a volume with authenticated encryption was read and closed, no piece of its keys is left.

use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{Container, OpenOptions, Undo};
use luksmith::secret::{LockedBytes, VolumeKey};
use support::tagged::Tagged;

use crate::process::flags_of;
use crate::scan::Needle;

#[test]
fn nothing_is_left_of_a_volume_with_tags() {
    for name in [
        "hmac-plain64-512",
        "hmac-random-4096",
        "gcm-512",
        "gcm-192",
        "gcm-4096",
        "chacha-512",
        "aegis-512",
    ] {
        let vector = Tagged::named(name);
        let key = LockedBytes::copy_from(&vector.key).unwrap();
        let (at, size) = (vector.written[1], vector.sector_size);
        let expected = vector.sector(at);
        let Tagged {
            image, key: copy, ..
        } = vector;
        // The allocator wipes it.
        drop(copy);
        let needle = Needle::of(&key);
        let key = VolumeKey::from_locked(key);

        let data = Arc::new(MemoryBackend::from_bytes(image));
        let options = OpenOptions::new(Undo::NotLookedFor);
        let container = Container::open(data.clone(), options).unwrap();
        let unlocked = container.unlock_with_key(key, &Interrupt::new()).unwrap();
        let volume = container.volume(data, &unlocked).unwrap();
        drop(unlocked);
        let mut content = vec![0; expected.len()];
        volume.read_at(at * size, &mut content).unwrap();
        assert!(content == expected, "{name}");
        volume.read_at(volume.size() / 2, &mut [0]).unwrap_err();
        for hit in needle.find() {
            let flags = flags_of(hit.address);
            let locked = flags.iter().any(|flag| flag == "lo");
            assert!(locked, "{name}: a key where {flags:?}: {hit:x?}");
        }
        drop((volume, container));
        needle.assert_gone(name);
    }
}
