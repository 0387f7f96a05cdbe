//! Backups from an attacker, and headers that change between reading and writing: nothing is
//! written.

use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::Backend;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{
    CommitError, Configure, Container, HeaderError, KeyslotError, NewKeyslot, RestoreOptions,
    Unlocked, Version,
};
use luksmith::kdf::calibrate::Cost;
use luksmith::sectors::{Cipher, Sectors};
use luksmith_formats::Hash;
use luksmith_formats::json::json;
use luksmith_formats::luks2::{Position, Priority};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::image::{
    COPY, LUKS1_DATA, LUKS2_DATA, edit_binary, luks1, luks2, make, open, options, passphrase,
    storage, unlock, with_undo,
};

fn restore(image: &Arc<MemoryBackend>, backup: &[u8]) -> Result<Container, HeaderError> {
    Container::restore(
        image.clone(),
        backup,
        RestoreOptions::new().other_uuid(true),
        with_undo(),
    )
    .map(|(container, _)| container)
}

/// Checks that a restore is refused, with and without `allow_other_uuid`, and that nothing is
/// written.
fn assert_not_restored(name: &str, image: Vec<u8>, backup: &[u8]) {
    let image = storage(image);
    let before = image.to_bytes();
    let result = restore(&image, backup);
    assert!(
        matches!(
            result,
            Err(HeaderError::Backup(_) | HeaderError::Mismatch(_))
        ),
        "{name}: {result:?}"
    );
    assert!(image.to_bytes() == before, "{name}: written");
}

#[test]
fn a_backup_that_does_not_fit_changes_nothing() {
    let backup_of = |image: Vec<u8>| open(&storage(image)).unwrap().backup().unwrap();
    let (one, two) = (backup_of(luks1()), backup_of(luks2()));
    // Control: these backups can be restored.
    restore(&storage(luks1()), &one).unwrap();
    restore(&storage(luks2()), &two).unwrap();

    let elsewhere = |version, offset| {
        let mut made = options(version);
        made.data_offset = Some(offset);
        backup_of(make(made))
    };
    let mut larger = options(Version::Luks2);
    larger.metadata_size = Some(2 * COPY as u64);
    let larger = backup_of(make(larger));
    let mut one_copy = two.clone();
    one_copy[COPY..2 * COPY].fill(0);
    let mut requirements = two.clone();
    for start in [0, COPY] {
        crate::image::edit_copy(&mut requirements[start..start + COPY], |json| {
            json["config"]["requirements"] = json!({"mandatory": ["of-the-future"]});
        });
    }
    for (name, image, backup) in [
        ("nothing", luks2(), vec![]),
        ("a byte", luks2(), vec![b'L']),
        ("zeros", luks2(), vec![0; LUKS2_DATA]),
        ("the other version", luks2(), one.clone()),
        ("the other version", luks1(), two.clone()),
        ("other offset", luks2(), elsewhere(Version::Luks2, 2 << 20)),
        ("other offset", luks1(), elsewhere(Version::Luks1, 3 << 20)),
        ("other metadata size", luks2(), larger),
        ("cut", luks2(), two[..2 * COPY].to_vec()),
        ("cut in a copy", luks2(), two[..COPY + 100].to_vec()),
        ("cut", luks1(), one[..592].to_vec()),
        ("one copy", luks2(), one_copy),
        ("requirements", luks2(), requirements),
    ] {
        assert_not_restored(name, image, &backup);
    }

    // The same, to a storage that is too short.
    let image = storage(vec![0; LUKS1_DATA - 1]);
    assert!(matches!(
        restore(&image, &one),
        Err(HeaderError::Mismatch(_))
    ));
    let image = storage(vec![0; LUKS2_DATA - 1]);
    assert!(matches!(
        restore(&image, &two),
        Err(HeaderError::Mismatch(_))
    ));
    assert!(image.to_bytes().iter().all(|&byte| byte == 0));
}

#[test]
fn a_backup_of_another_volume_is_asked_about() {
    let other = make(options(Version::Luks2));
    let backup = open(&storage(other)).unwrap().backup().unwrap();
    let image = storage(luks2());
    let result = Container::restore(image.clone(), &backup, RestoreOptions::new(), with_undo());
    assert!(matches!(result, Err(HeaderError::OtherUuid { .. })));
    assert!(image.to_bytes() == luks2());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_luks2_backup_changes_nothing(at in 0..2 * COPY, bit in 0..8_u32) {
        // The bytes of the checksum field after the 32 bytes of SHA-256 have no meaning.
        prop_assume!(!(480..512).contains(&(at % COPY)));
        let mut backup = luks2()[..LUKS2_DATA].to_vec();
        backup[at] ^= 1_u8 << bit;
        let image = storage(luks2());
        prop_assert!(restore(&image, &backup).is_err());
        prop_assert!(image.to_bytes() == luks2());
    }

    #[test]
    fn a_refused_backup_changes_nothing(
        luks1_backup: bool,
        length in 0..LUKS1_DATA,
        damage in vec((0..5000_usize, any::<u8>()), 0..8),
    ) {
        let (mut backup, good) = if luks1_backup { (luks1(), luks1()) } else { (luks2(), luks2()) };
        backup.truncate(length.min(LUKS1_DATA));
        for (at, byte) in damage {
            if let Some(place) = backup.get_mut(at) {
                *place = byte;
            }
        }
        let image = storage(good.clone());
        match restore(&image, &backup) {
            Err(_) => prop_assert!(image.to_bytes() == good),
            // A LUKS1 header has no checksum. A changed but valid one is restored, and the data
            // stays.
            Ok(_) => {
                let data = if luks1_backup { LUKS1_DATA } else { LUKS2_DATA };
                prop_assert!(image.to_bytes()[data..] == good[data..]);
            }
        }
    }

    #[test]
    fn random_bytes_are_no_backup(bytes in vec(any::<u8>(), 0..40_000)) {
        let image = storage(luks2());
        prop_assert!(restore(&image, &bytes).is_err());
        prop_assert!(image.to_bytes() == luks2());
    }
}

fn changed(result: Result<(), CommitError>) -> bool {
    matches!(result, Err(CommitError::Changed))
}

fn commit_of_keyslot<T: std::fmt::Debug>(
    result: Result<T, KeyslotError>,
) -> Result<(), CommitError> {
    match result {
        Err(KeyslotError::Commit(error)) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn commit_of_header<T: std::fmt::Debug>(result: Result<T, HeaderError>) -> Result<(), CommitError> {
    match result {
        Err(HeaderError::Commit(error)) => Err(error),
        other => panic!("{other:?}"),
    }
}

/// Makes every change with a container that was opened before `behind` changed the storage.
fn assert_all_changes_noticed(image: Vec<u8>, behind: impl Fn(&mut Vec<u8>)) {
    let luks2 = image[7] == 2;
    let container = || -> (Container, Unlocked, Arc<MemoryBackend>, Vec<u8>) {
        let original = storage(image.clone());
        let container = Container::open(original.clone(), with_undo()).unwrap();
        let unlocked = unlock(&container).unwrap();
        let mut other = image.clone();
        behind(&mut other);
        original.write_at(0, &sectors(&other[..2 * COPY])).unwrap();
        let now = original.to_bytes();
        (container, unlocked, original, now)
    };
    let passphrase = passphrase();
    let new = NewKeyslot::new(
        &passphrase,
        Cost::Pbkdf2 {
            hash: Hash::Sha256,
            iterations: 1000,
        },
    );
    let interrupt = Interrupt::new();
    type Change<'a> =
        &'a dyn Fn(&mut Container, &Unlocked, &MemoryBackend) -> Result<(), CommitError>;
    let uuid = Configure::new().uuid(uuid::Uuid::nil());
    let both: [(&str, Change<'_>); 8] = [
        ("add", &|c, u, _| {
            commit_of_keyslot(c.add_keyslot(u, &new, &interrupt))
        }),
        ("change", &|c, u, _| {
            commit_of_keyslot(c.change_keyslot(u, &new, &interrupt))
        }),
        ("remove", &|c, _, _| {
            commit_of_keyslot(c.remove_keyslot(0, true))
        }),
        ("uuid", &|c, _, _| commit_of_header(c.configure(&uuid))),
        ("erase", &|c, _, _| commit_of_header(c.erase())),
        ("backup", &|c, _, _| commit_of_header(c.backup())),
        ("grow", &|c, _, s| commit_of_header(c.resize(s, 1 << 20))),
        ("shrink", &|c, _, s| commit_of_header(c.resize(s, 512))),
    ];
    let only_luks2: [(&str, Change<'_>); 2] = [
        ("priority", &|c, _, _| {
            commit_of_keyslot(c.set_priority(0, Priority::Prefer))
        }),
        ("token", &|c, _, _| {
            commit_of_header(c.add_token(None, json!({"type": "own", "keyslots": []}), false))
        }),
    ];
    let more = if luks2 { &only_luks2[..] } else { &[] };
    for (name, change) in both.iter().chain(more) {
        let (mut container, unlocked, storage, before) = container();
        assert!(
            changed(change(&mut container, &unlocked, &storage)),
            "{name}"
        );
        assert!(storage.to_bytes() == before, "{name}: written");
    }
}

fn sectors(bytes: &[u8]) -> Sectors<Cipher> {
    let mut sectors = Sectors::<Cipher>::zeroed(bytes.len());
    sectors.as_mut_slice().copy_from_slice(bytes);
    sectors
}

#[test]
fn a_header_that_was_changed_behind_our_back_is_not_written() {
    let next = 2_u64.to_be_bytes();
    assert_all_changes_noticed(luks2(), |image| {
        for position in Position::ALL {
            edit_binary(image, position, 16, &next);
        }
    });
    // Only one copy, as in the middle of another program's write.
    assert_all_changes_noticed(luks2(), |image| {
        edit_binary(image, Position::Secondary, 16, &next);
    });
    assert_all_changes_noticed(luks2(), |image| image[..COPY].fill(0));
    assert_all_changes_noticed(luks1(), |image| image[208 + 10] ^= 1);
    assert_all_changes_noticed(luks1(), |image| image[..4096].fill(0));
}

#[test]
fn a_storage_that_shrinks_after_opening_is_an_error() {
    for image in [luks1(), luks2()] {
        for size in [0, 100, 5000, 100_000] {
            let storage = storage(image.clone());
            let mut container = open(&storage).unwrap();
            let unlocked = unlock(&container).unwrap();
            storage.resize(size).unwrap();
            assert!(container.volume(storage.clone(), &unlocked).is_err());
            assert!(unlock(&container).is_err());
            assert!(container.remove_keyslot(0, true).is_err());
            // What is left of the key material is destroyed, if the header is still there.
            let header = match container.version() {
                Version::Luks1 => 4096,
                Version::Luks2 => 2 * COPY as u64,
            };
            assert_eq!(container.erase().is_ok(), size >= header, "{size}");
        }
    }
}
