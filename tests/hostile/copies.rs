//! Images that end too early, and damaged, lost, stale, forged and overwritten copies of a LUKS2
//! header.

use std::sync::Arc;

use luksmith::backend::Backend;
use luksmith::container::{
    CommitError, Container, Doubt, HeaderError, Health, Mend, OpenError, OpenOptions, Remains,
    Repaired, Undo, Version, VolumeError,
};
use luksmith_formats::json::json;
use luksmith_formats::luks2::{HEADER_SIZES, Position};

use crate::image::{
    COPY, DATA, LUKS1_DATA, LUKS2_DATA, edit_binary, edit_copy, luks1, luks2, make, open, options,
    storage, unlock, with_json, with_luks1,
};

#[test]
fn an_image_that_ends_too_early_says_how_long_it_should_be() {
    let luks2 = luks2();
    for (length, needed) in [
        (4096, 2 * COPY),
        (COPY, LUKS2_DATA),
        (2 * COPY - 1, LUKS2_DATA),
        (2 * COPY, LUKS2_DATA),
        (LUKS2_DATA - 1, LUKS2_DATA),
    ] {
        let result = open(&storage(luks2[..length].to_vec()));
        let Err(OpenError::TooSmall { size, needed: said }) = result else {
            panic!("{length}: {result:?}");
        };
        assert_eq!((size, said), (length as u64, needed as u64));
    }
    // LUKS1 needs the keyslots in use: here one, after the first 4096 bytes.
    let (luks1, used) = (luks1(), 4096 + 4000 * 64);
    for length in [592, 4096, 100_000, used - 1] {
        let result = open(&storage(luks1[..length].to_vec()));
        let Err(OpenError::TooSmall { size, needed }) = result else {
            panic!("{length}: {result:?}");
        };
        assert_eq!((size, needed), (length as u64, used as u64));
    }
    for length in [0, 1, 6, 511, 591] {
        for image in [&luks1, &luks2] {
            let result = open(&storage(image[..length].to_vec()));
            assert!(
                matches!(result, Err(OpenError::NotLuks)),
                "{length}: {result:?}"
            );
        }
    }
}

#[test]
fn data_that_ends_too_early_says_how_long_it_should_be() {
    // A segment of fixed size, with its header before it and with a detached header.
    let fixed = with_json(|json| json["segments"]["0"]["size"] = json!("65536"));
    let container = open(&storage(fixed.clone())).unwrap();
    let unlocked = unlock(&container).unwrap();
    let exact = container.volume(storage(fixed), &unlocked).unwrap();
    assert_eq!(exact.size(), DATA as u64);
    for length in [0, 512, LUKS2_DATA, LUKS2_DATA + DATA - 1] {
        let result = container.volume(storage(vec![0; length]), &unlocked);
        let Err(VolumeError::TooSmall { size, needed }) = result else {
            panic!("{length}: {result:?}");
        };
        assert_eq!(size, length as u64);
        assert_eq!(needed, (LUKS2_DATA + DATA) as u64);
    }

    let mut detached = options(Version::Luks2);
    (detached.detached, detached.data_offset) = (true, None);
    let mut header = make(detached);
    for start in [0, COPY] {
        edit_copy(&mut header[start..start + COPY], |json| {
            json["segments"]["0"]["size"] = json!("65536");
        });
    }
    let container = open(&storage(header)).unwrap();
    let unlocked = unlock(&container).unwrap();
    let short = container.volume(storage(vec![0; 65535]), &unlocked);
    assert!(matches!(
        short,
        Err(VolumeError::TooSmall {
            size: 65535,
            needed: 65536
        })
    ));
    let volume = container.volume(storage(vec![0; 70_000]), &unlocked);
    assert_eq!(volume.unwrap().size(), 65536);

    // The data of LUKS1 starts past the end.
    for sectors in [4096 + 128 + 1, u32::MAX] {
        let far = storage(with_luks1(|header| header.payload_offset = sectors));
        let container = open(&far).unwrap();
        let result = container.volume(far, &unlock(&container).unwrap());
        let Err(VolumeError::TooSmall { needed, .. }) = result else {
            panic!("{sectors}: {result:?}");
        };
        assert_eq!(needed, u64::from(sectors) * 512);
    }
}

#[test]
fn data_that_is_not_whole_sectors_is_rounded_down() {
    let image = with_json(|json| json["segments"]["0"]["sector_size"] = json!(4096));
    let container = open(&storage(image.clone())).unwrap();
    let unlocked = unlock(&container).unwrap();
    for (extra, expected) in [(0, 0), (1, 0), (4095, 0), (4096, 4096), (9000, 8192)] {
        let mut cut = image.clone();
        cut.resize(LUKS2_DATA + extra, 0);
        let volume = container.volume(storage(cut), &unlocked).unwrap();
        assert_eq!(volume.size(), expected, "{extra} bytes of data");
    }
    let mut odd = luks1();
    odd.truncate(LUKS1_DATA + 1000);
    let odd = storage(odd);
    let container = open(&odd).unwrap();
    let volume = container.volume(odd, &unlock(&container).unwrap()).unwrap();
    assert_eq!(volume.size(), 512);
    assert!(volume.write_at(511, &[1, 2]).is_err());
}

#[test]
fn both_copies_damaged_is_the_end() {
    let mut image = luks2();
    image[4100] ^= 1;
    image[COPY + 4100] ^= 1;
    let storage = storage(image.clone());
    let Err(OpenError::BothCopies { primary, secondary }) = open(&storage) else {
        panic!("opened");
    };
    assert_eq!((primary.field.as_str(), primary.offset), ("checksum", 448));
    assert_eq!(secondary.field, "checksum");
    assert_eq!(secondary.offset, COPY as u64 + 448);
    let repaired = Container::repair(storage.clone(), OpenOptions::new(Undo::NotLookedFor));
    assert!(matches!(repaired, Err(HeaderError::Open(_))));
    assert_eq!(storage.to_bytes(), image);
}

/// Metadata that breaks a rule, with a valid checksum, is of a program that knows more. What is
/// newer counts, and is not overwritten by what is older.
#[test]
fn newer_metadata_that_is_not_understood_is_left_alone() {
    for (newer, older) in [
        (Position::Primary, Position::Secondary),
        (Position::Secondary, Position::Primary),
    ] {
        for (not_understood, seqid) in [(newer, 2_u64), (older, 0)] {
            let mut image = luks2();
            let start = usize::try_from(not_understood.offset(COPY as u64)).unwrap();
            edit_copy(&mut image[start..start + COPY], |json| {
                json["config"] = json!({});
            });
            edit_binary(&mut image, not_understood, 16, &seqid.to_be_bytes());
            let storage = storage(image.clone());
            let options = OpenOptions::new(Undo::NotLookedFor);
            let repaired = Container::repair(storage.clone(), options);
            if not_understood == newer {
                let opened = open(&storage);
                let Err(OpenError::NotUnderstood(error)) = opened else {
                    panic!("{newer:?}: {opened:?}");
                };
                assert_eq!(error.field, "config.json_size");
                assert!(repaired.is_err());
                assert!(storage.to_bytes() == image, "{newer:?}");
            } else {
                assert_eq!(repaired.unwrap().len(), 1);
                unlock(&open(&storage).unwrap()).unwrap();
            }
        }
    }
}

#[test]
fn one_copy_is_enough_wherever_it_is() {
    for size in HEADER_SIZES {
        let mut made = options(Version::Luks2);
        made.metadata_size = Some(size);
        (made.keyslots_size, made.data_offset) = (Some(512 << 10), None);
        let image = make(made);
        let copy = usize::try_from(size).unwrap();
        for (lost, expected) in [
            (0..copy, Repaired::PrimaryCopy),
            (copy..2 * copy, Repaired::SecondaryCopy),
        ] {
            let mut damaged = image.clone();
            damaged[lost.clone()].fill(0);
            let storage = storage(damaged.clone());
            let container = open(&storage).unwrap_or_else(|error| panic!("{size}: {error}"));
            assert!(!matches!(container.health(), Health::Good));
            unlock(&container).unwrap();
            assert_eq!(storage.to_bytes(), damaged, "opening has written");
            let repaired = Container::repair(storage.clone(), OpenOptions::new(Undo::NotLookedFor));
            assert_eq!(repaired.unwrap(), [expected]);
            let container = open(&storage).unwrap();
            assert!(matches!(container.health(), Health::Good));
            unlock(&container).unwrap();
            assert_eq!(storage.to_bytes()[2 * copy..], image[2 * copy..]);
        }
    }
}

#[test]
fn a_stale_copy_gives_way_to_the_newer_one() {
    for stale in Position::ALL {
        let mut image = luks2();
        // The label shows which copy was used.
        let newer = match stale {
            Position::Primary => Position::Secondary,
            Position::Secondary => Position::Primary,
        };
        edit_binary(&mut image, newer, 16, &2_u64.to_be_bytes());
        edit_binary(&mut image, newer, 24, b"newer");
        let storage = storage(image.clone());
        let container = open(&storage).unwrap();
        let luksmith::container::Header::Luks2(header) = container.header() else {
            panic!("not LUKS2");
        };
        assert_eq!((header.seqid, header.label.as_str()), (2, "newer"));
        match (stale, container.health()) {
            (Position::Primary, Health::PrimaryStale)
            | (Position::Secondary, Health::SecondaryStale) => {}
            (stale, health) => panic!("{stale:?}: {health:?}"),
        }
        unlock(&container).unwrap();
        assert_eq!(storage.to_bytes(), image);
        assert_eq!(
            Container::repair(storage.clone(), OpenOptions::new(Undo::NotLookedFor))
                .unwrap()
                .len(),
            1
        );
        assert!(matches!(open(&storage).unwrap().health(), Health::Good));
    }
}

/// An attacker who can write one copy can write both. A forged copy with a higher number is used,
/// and validated like any other. A bad copy must not be used, no copy may be searched elsewhere,
/// and opening must not write.
#[test]
fn a_forged_secondary_wins_by_its_number_only_if_it_is_valid() {
    let highest = u64::MAX.to_be_bytes();
    let mut image = luks2();
    edit_binary(&mut image, Position::Secondary, 16, &highest);
    image[COPY + 5000] ^= 1;
    let container = open(&storage(image)).unwrap();
    assert!(matches!(container.health(), Health::SecondaryDamaged(_)));

    // It claims another size, or another place.
    for (at, value) in [(8, 2 * COPY as u64), (256, 0), (256, 4 * COPY as u64)] {
        let mut image = luks2();
        edit_binary(&mut image, Position::Secondary, 16, &highest);
        edit_binary(&mut image, Position::Secondary, at, &value.to_be_bytes());
        let container = open(&storage(image)).unwrap();
        assert!(matches!(container.health(), Health::SecondaryDamaged(_)));
    }

    // A valid copy in the keyslots area, at the offset of a larger header, is ignored.
    let mut image = luks2();
    let mut larger = options(Version::Luks2);
    larger.metadata_size = Some(4 * COPY as u64);
    let other = make(larger);
    image[4 * COPY..8 * COPY].copy_from_slice(&other[4 * COPY..8 * COPY]);
    let container = open(&storage(image.clone())).unwrap();
    assert!(matches!(container.health(), Health::Good));
    assert_eq!(container.uuid(), open(&storage(luks2())).unwrap().uuid());
}

/// A copy with a new content and the same number could not be told from the old one.
#[test]
fn a_header_with_the_highest_sequence_number_is_not_changed() {
    let highest = u64::MAX.to_be_bytes();
    let mut image = luks2();
    for position in Position::ALL {
        edit_binary(&mut image, position, 16, &highest);
    }
    let disk = storage(image.clone());
    let mut container = open(&disk).unwrap();
    unlock(&container).unwrap();
    let change = luksmith::container::Configure::new().label("changed".to_owned());
    let changed = container.configure(&change);
    assert!(
        matches!(changed, Err(HeaderError::Commit(CommitError::Sequence))),
        "{changed:?}"
    );
    let removed = container.remove_keyslot(0, true);
    assert!(removed.is_err(), "{removed:?}");
    assert!(disk.to_bytes() == image, "written");

    // A repair writes the content of the good copy.
    for damaged in [100, COPY + 100] {
        let mut image = image.clone();
        image[damaged] ^= 1;
        let disk = storage(image);
        let options = OpenOptions::new(Undo::NotLookedFor);
        assert_eq!(Container::repair(disk.clone(), options).unwrap().len(), 1);
        let container = open(&disk).unwrap();
        assert!(matches!(container.health(), Health::Good));
        unlock(&container).unwrap();
    }
}

#[test]
fn of_different_copies_with_one_sequence_number_the_primary_counts() {
    let mut image = luks2();
    edit_binary(&mut image, Position::Secondary, 24, b"other");
    let disk = storage(image.clone());
    let container = open(&disk).unwrap();
    assert!(
        matches!(container.health(), Health::CopiesDiffer),
        "{:?}",
        container.health()
    );
    let options = OpenOptions::new(Undo::NotLookedFor);
    let repaired = Container::repair(disk.clone(), options).unwrap();
    assert_eq!(repaired, [Repaired::SecondaryCopy]);
    let container = open(&disk).unwrap();
    assert!(matches!(container.health(), Health::Good));
    let luksmith::container::Header::Luks2(header) = container.header() else {
        panic!("not LUKS2");
    };
    assert_eq!(header.label, "");
    unlock(&container).unwrap();
}

#[test]
fn a_filesystem_over_the_primary_copy_is_not_repaired_away() {
    let signatures: [(usize, &[u8]); 11] = [
        (0, b"XFSB"),
        (0, b"QFI\xfb"),
        (0, b"hsqs"),
        (0, b"vhdxfile"),
        (510, b"\x55\xaa"),
        (512, b"EFI PART"),
        (1024, b"\x10\x20\xf5\xf2"),
        (1080, b"\x53\xef"),
        (4086, b"SWAPSPACE2"),
        (32769, b"CD001"),
        (65600, b"_BHRfS_M"),
    ];
    for (at, signature) in signatures {
        let mut image = luks2();
        image[..COPY].fill(0);
        image[at..at + signature.len()].copy_from_slice(signature);
        // Data over the secondary copy does not matter here.
        if (COPY..2 * COPY).contains(&at) {
            continue;
        }
        // With the magic in place, the volume opens by the other copy, and nothing else changes.
        // Without it, it does not open.
        let wiped = storage(image.clone());
        let opened = open(&wiped);
        assert!(
            matches!(
                opened,
                Err(OpenError::Remains(Remains::Secondary { at: 16384, .. }))
            ),
            "{signature:?}: {opened:?}"
        );
        let options = OpenOptions::new(Undo::NotLookedFor);
        let repaired = Container::repair(wiped.clone(), options.clone());
        assert!(
            matches!(repaired, Err(HeaderError::Open(OpenError::Remains(_)))),
            "{signature:?}: {repaired:?}"
        );
        assert_eq!(wiped.to_bytes(), image, "{signature:?}");
        if at < 6 {
            continue;
        }
        image[..6].copy_from_slice(b"LUKS\xba\xbe");
        let storage = storage(image.clone());
        let container = open(&storage).unwrap();
        assert!(matches!(container.health(), Health::PrimaryDamaged(_)));
        let repaired = Container::repair(storage.clone(), options.clone());
        assert!(
            matches!(repaired, Err(HeaderError::Commit(CommitError::Foreign(_)))),
            "{signature:?}: {repaired:?}"
        );
        // No other change overwrites it either.
        let mut container = open(&storage).unwrap();
        let label = luksmith::container::Configure::new().label("changed".to_owned());
        container.configure(&label).unwrap_err();
        container.remove_keyslot(0, true).unwrap_err();
        container.erase().unwrap_err();
        assert_eq!(storage.to_bytes(), image, "{signature:?}");

        // If the caller agrees to it, the repair gets the header back, in both cases.
        for storage in [wiped, storage] {
            let backend: Arc<dyn Backend> = storage.clone();
            let mend = Mend::find(&backend, &options).unwrap().unwrap();
            assert!(matches!(mend.doubts(), [Doubt::Overwrites(_)]));
            assert_eq!(
                mend.execute(&backend, &options).unwrap(),
                [Repaired::PrimaryCopy]
            );
            let container = open(&storage).unwrap();
            assert!(matches!(container.health(), Health::Good));
            // A signature in the keyslots area has overwritten key material.
            assert_eq!(unlock(&container).is_ok(), at < COPY, "{signature:?}");
        }
    }
}

/// A detached header that ends before the last places of a signature.
#[test]
fn the_shortest_header_is_repaired() {
    let mut made = options(Version::Luks2);
    (made.detached, made.data_offset) = (true, None);
    (made.cipher, made.key_size) = (
        luksmith_formats::CipherSpec::parse("aes-cbc-plain64").unwrap(),
        16,
    );
    made.keyslots_size = Some(64 << 10);
    let mut image = make(made);
    image[..COPY].fill(0);
    let storage = storage(image);
    Container::repair(storage.clone(), OpenOptions::new(Undo::NotLookedFor)).unwrap();
    let mut container = open(&storage).unwrap();
    container.erase().unwrap();
    for start in [0, COPY] {
        let mut image = storage.to_bytes();
        for start in [0, COPY] {
            edit_copy(&mut image[start..start + COPY], |json| {
                json["config"]["keyslots_size"] = json!("0");
            });
        }
        image.truncate(2 * COPY);
        image[start..start + COPY].fill(0);
        let storage = self::storage(image);
        Container::repair(storage.clone(), OpenOptions::new(Undo::NotLookedFor)).unwrap();
        assert!(matches!(open(&storage).unwrap().health(), Health::Good));
    }
}
