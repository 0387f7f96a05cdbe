//! After a volume was made, opened, used, given other passphrases and closed, no piece of its
//! secrets is left in memory.
//!
//! The search, and the computation of what it looks for, run on other threads. So anything that the
//! library left on the stack of this thread stays there and is found.

use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{Container, KeyslotInfo, OpenOptions, Undo, Version, Which};
use luksmith::crypt::{IvSector, SectorCrypt};
use luksmith::kdf::calibrate::Cost;
use luksmith::kdf::derive;
use luksmith::secret::{LockedBytes, Passphrase, VolumeKey};
use luksmith::sectors::{Cipher, Plain, Sectors};
use luksmith_formats::{CipherSpec, Limits};

use crate::sample::{ARGON2ID, DATA, PBKDF2, copy, create, new_keyslot, options};
use crate::scan::{Needle, fresh};

/// The secrets to search for, by name.
type Needles = Vec<(&'static str, Needle)>;

/// Runs all operations on a volume, on this thread. Returns the secrets that must be gone.
fn live(version: Version, cost: Cost, cipher: &str, key_size: usize) -> Needles {
    let (key, canary) = (fresh(key_size), fresh(512));
    let passphrases = [fresh(24), fresh(100), fresh(40)];
    let storage = Arc::new(MemoryBackend::new(
        (3 << 20) + usize::try_from(DATA).unwrap(),
    ));
    let interrupt = Interrupt::new();
    let mut made = options(version, cost, cipher, &key);
    // A storage of mostly zeros is searched quickly.
    made.blank = true;
    let (container, unlocked) = create(
        storage.clone(),
        made,
        OpenOptions::new(Undo::NotLookedFor),
        &passphrases[0],
    );
    drop((container, unlocked));

    let mut container =
        Container::open(storage.clone(), OpenOptions::new(Undo::NotLookedFor)).unwrap();
    let [first, second, third] =
        [0, 1, 2].map(|n: usize| Passphrase::from_locked(copy(&passphrases[n])));
    let wrong = container.unlock(&third, Which::Any, &interrupt);
    assert!(wrong.is_err());
    let unlocked = container.unlock(&first, Which::Any, &interrupt).unwrap();
    let mut needles = needles_of_keyslot(&container, &storage, &passphrases[0], cost);

    let added = container
        .add_keyslot(&unlocked, &new_keyslot(&second, cost), &interrupt)
        .unwrap();
    let by_second = container
        .unlock(&second, Which::Slot(added), &interrupt)
        .unwrap();
    container
        .change_keyslot(&by_second, &new_keyslot(&third, cost), &interrupt)
        .unwrap();
    container.remove_keyslot(0, false).unwrap();
    assert!(container.unlock(&first, Which::Any, &interrupt).is_err());

    let volume = container.volume(storage.clone(), &unlocked).unwrap();
    let mut back = LockedBytes::new(canary.len()).unwrap();
    for offset in [0, 100, 4096, 8191, 300_000] {
        volume.write_at(offset, &canary).unwrap();
        volume.read_at(offset, &mut back).unwrap();
        assert_eq!(back[..], canary[..]);
    }
    let mut sectors = Sectors::<Plain>::zeroed(8192);
    for piece in sectors.as_mut_slice().chunks_exact_mut(512) {
        piece.copy_from_slice(&canary);
    }
    volume.write_sectors(65536, sectors).unwrap();
    assert_eq!(
        volume.read_sectors(65536, 8192).unwrap().as_slice()[..512],
        canary[..]
    );
    drop((volume, container, unlocked, by_second));

    needles.push(("the volume key", Needle::of(&key)));
    needles.push(("the plaintext", Needle::of(&canary[..128])));
    for passphrase in &passphrases {
        needles.push(("a passphrase", Needle::of(passphrase)));
    }
    needles
}

/// The secrets of the first keyslot: the derived key, and the first and last stripes of the split
/// key.
fn needles_of_keyslot(
    container: &Container,
    storage: &Arc<MemoryBackend>,
    passphrase: &[u8],
    cost: Cost,
) -> Needles {
    let slot: KeyslotInfo = container.keyslots().remove(0);
    let image = storage.to_bytes();
    std::thread::scope(|scope| {
        let computed = scope.spawn(|| {
            let passphrase = Passphrase::from_locked(copy(passphrase));
            let limits = Limits::default();
            let sealing = slot.sealing.as_ref().unwrap();
            let derived = derive(
                &sealing.kdf,
                &passphrase,
                sealing.cipher_key_size,
                &limits,
                &Interrupt::new(),
            )
            .unwrap();
            assert!(matches!(
                (cost, &sealing.kdf),
                (
                    Cost::Pbkdf2 { .. },
                    luksmith_formats::luks2::Kdf::Pbkdf2 { .. }
                ) | (Cost::Argon2(_), luksmith_formats::luks2::Kdf::Argon2 { .. })
            ));
            let derived = VolumeKey::from_locked(derived);
            let crypt = SectorCrypt::new(sealing.cipher, 512, &derived).unwrap();
            let length = slot.key_size * 4000;
            let start = usize::try_from(slot.area.start).unwrap();
            let mut material = Sectors::<Cipher>::zeroed(length.next_multiple_of(512));
            let end = start + material.len();
            material.as_mut_slice().copy_from_slice(&image[start..end]);
            let material = crypt.decrypt(IvSector(0), material);
            let stripes = &material.as_slice()[..length];
            // Positive control: the key comes from these stripes.
            luksmith::kdf::af::merge(stripes, slot.key_size, 4000, sealing.af_hash).unwrap();
            vec![
                ("the derived key", Needle::of(derived.as_bytes())),
                ("the first stripes", Needle::of(&stripes[..64])),
                ("the last stripes", Needle::of(&stripes[length - 64..])),
            ]
        });
        computed.join().unwrap()
    })
}

/// Searches on another thread, and reports everything that is left at once.
fn assert_all_gone(needles: &Needles, of: &str) {
    let left: Vec<String> = std::thread::scope(|scope| {
        let search = || {
            needles
                .iter()
                .filter_map(|(name, needle)| {
                    let hits = needle.find();
                    (!hits.is_empty()).then(|| format!("{name} of {of}: {hits:x?}"))
                })
                .collect()
        };
        scope.spawn(search).join().unwrap()
    });
    assert!(left.is_empty(), "{}", left.join("\n"));
}

#[test]
fn nothing_is_left_of_a_luks1_volume() {
    let needles = live(Version::Luks1, PBKDF2, "aes-xts-plain64", 64);
    assert_all_gone(&needles, "LUKS1");
}

#[test]
fn nothing_is_left_of_a_luks2_volume_with_pbkdf2() {
    let needles = live(Version::Luks2, PBKDF2, "aes-xts-plain64", 64);
    assert_all_gone(&needles, "LUKS2 with pbkdf2");
}

#[test]
fn nothing_is_left_of_a_luks2_volume_with_argon2id() {
    let needles = live(Version::Luks2, ARGON2ID, "aes-xts-plain64", 64);
    assert_all_gone(&needles, "LUKS2 with argon2id");
}

#[test]
fn nothing_is_left_of_other_ciphers() {
    for (cipher, key_size) in [
        ("aes-xts-plain64", 32),
        ("aes-xts-plain64", 48),
        ("aes-xts-essiv:sha256", 64),
        ("aes-cbc-essiv:sha256", 32),
        ("serpent-xts-plain64", 64),
        ("camellia-xts-plain64", 64),
        ("twofish-cbc-plain64", 32),
        ("xchacha12,aes-adiantum-plain64", 32),
    ] {
        assert!(CipherSpec::parse(cipher).is_ok());
        let needles = live(Version::Luks2, PBKDF2, cipher, key_size);
        assert_all_gone(&needles, cipher);
    }
}

/// Positive control: the same search finds the secrets while the volume is open.
#[test]
fn an_open_volume_is_found() {
    let (key, canary) = (fresh(64), fresh(64));
    let storage = Arc::new(MemoryBackend::new(4 << 20));
    let made = options(Version::Luks2, PBKDF2, "aes-xts-plain64", &key);
    let passphrase = fresh(24);
    let (container, unlocked) = create(
        storage.clone(),
        made,
        OpenOptions::new(Undo::NotLookedFor),
        &passphrase,
    );
    let volume = container.volume(storage, &unlocked).unwrap();
    volume.write_at(0, &canary).unwrap();
    let held = volume.read_sectors(0, 512).unwrap();
    let needles = [Needle::of(&key), Needle::of(&canary)];
    drop((key, canary));
    for needle in &needles {
        assert!(!needle.find().is_empty());
    }
    drop((held, volume, unlocked, container));
    for needle in &needles {
        needle.assert_gone("what was found before");
    }
}
