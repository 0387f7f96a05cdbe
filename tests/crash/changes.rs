//! A test for each change of metadata, with LUKS1 and LUKS2.

use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::Backend;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{
    CommitError, Configure, Container, CreateOptions, Doubt, HeaderError, Health, KeyslotError,
    NewKeyslot, Repaired, RestoreOptions, Version,
};
use luksmith_formats::luks2::Priority;

use crate::disk::{Event, State};
use crate::states;
use crate::volume::{Sample, add, change, cost, open, open_options, passphrase, unlock};

fn opens(state: &State, text: &str) -> bool {
    unlock(&open(state).unwrap(), text).is_some()
}

fn change_passphrase(sample: &Sample) -> usize {
    let (after, states) = sample.cut(&["old", "new"], &[], |disk, undo| {
        change(disk, undo, "old", "new");
    });
    assert!(opens(&after, "new"));
    assert!(!opens(&after, "old"), "the old passphrase still opens");
    states
}

#[test]
fn change_luks1_with_a_free_slot() {
    assert!(change_passphrase(&Sample::new(Version::Luks1, 32, 0)) > 500);
}

#[test]
fn change_luks1_with_all_slots_full_and_a_gap() {
    assert!(change_passphrase(&Sample::new(Version::Luks1, 32, 0).filled(8)) > 500);
}

#[test]
fn change_luks1_with_all_slots_full_and_no_gap() {
    assert!(change_passphrase(&Sample::new(Version::Luks1, 64, 0).filled(8)) > 500);
}

#[test]
fn change_luks1_slot_6_with_all_slots_full() {
    // Its entry crosses two sectors, so a crash could tear a change in place.
    let sample = Sample::new(Version::Luks1, 32, 0)
        .filled(8)
        .with(|container| {
            container.remove_keyslot(6, false).unwrap();
            add(container, "old", "old six", Some(6));
            container.remove_keyslot(0, false).unwrap();
            add(container, "old six", "bystander 0", Some(0));
        });
    let (after, _) = sample.cut(
        &["old six", "new six"],
        &["bystander 0", "bystander 7"],
        |disk, undo| {
            assert_eq!(change(disk, undo, "old six", "new six"), Some(6));
        },
    );
    assert!(opens(&after, "new six") && !opens(&after, "old six"));
}

#[test]
fn change_luks2_with_room() {
    assert!(change_passphrase(&Sample::new(Version::Luks2, 32, 3)) > 500);
}

#[test]
fn change_luks2_with_all_slots_full_and_room() {
    assert!(change_passphrase(&Sample::new(Version::Luks2, 32, 33).filled(32)) > 500);
}

#[test]
fn change_luks2_without_room() {
    assert!(change_passphrase(&Sample::new(Version::Luks2, 32, 2).filled(2)) > 200);
}

#[test]
fn add_to_every_slot_of_luks1() {
    for slot in 1..8 {
        let sample = Sample::new(Version::Luks1, 32, 0);
        let (after, _) = sample.cut(&["old"], &["old"], |disk, undo| {
            let mut container = Container::open(disk, open_options(&undo)).unwrap();
            add(&mut container, "old", "new", Some(slot));
        });
        assert!(opens(&after, "new"), "keyslot {slot}");
    }
}

#[test]
fn add_to_luks2() {
    let (after, _) = Sample::new(Version::Luks2, 32, 3).cut(&["old"], &["old"], |disk, undo| {
        let mut container = Container::open(disk, open_options(&undo)).unwrap();
        add(&mut container, "old", "new", None);
    });
    assert!(opens(&after, "new"));
}

#[test]
fn remove() {
    for (sample, slot) in [
        (Sample::new(Version::Luks1, 32, 0).filled(8), 1),
        (Sample::new(Version::Luks1, 32, 0).filled(8), 6),
        (Sample::new(Version::Luks1, 32, 0).filled(8), 7),
        (Sample::new(Version::Luks2, 32, 3).filled(2), 1),
    ] {
        let (after, _) = sample.cut(&["old"], &["old"], |disk, undo| {
            Container::open(disk, open_options(&undo))
                .unwrap()
                .remove_keyslot(slot, false)
                .unwrap();
        });
        assert!(
            !opens(&after, &format!("bystander {slot}")),
            "the removed passphrase still opens"
        );
        let area = open(&sample.state)
            .unwrap()
            .keyslots()
            .into_iter()
            .find(|info| info.slot == slot)
            .unwrap()
            .area;
        let area = usize::try_from(area.start).unwrap()..usize::try_from(area.end).unwrap();
        for (before, now) in sample.state.disk[area.clone()]
            .chunks(512)
            .zip(after.disk[area].chunks(512))
        {
            assert!(before != now, "key material is left");
        }
    }
}

#[test]
fn beside_open_data_a_change_that_reaches_it_or_overwrites_is_refused() {
    let beside = |sample: &Sample, block| {
        let (_, undo, _) = sample.state.start();
        let storage = MemoryBackend::from_bytes(sample.state.disk.clone()).with_block_size(block);
        Container::open(Arc::new(storage), open_options(&undo).beside(true)).unwrap()
    };
    let change = |container: &mut Container, slot| {
        let unlocked = unlock(container, "old").unwrap();
        let passphrase = passphrase("new");
        let new = NewKeyslot::new(&passphrase, cost()).slot(slot);
        match slot {
            Some(_) => container.add_keyslot(&unlocked, &new, &Interrupt::default()),
            None => container.change_keyslot(&unlocked, &new, &Interrupt::default()),
        }
    };
    let refused = |result| matches!(result, Err(KeyslotError::Commit(CommitError::InUse)));

    // The last keyslot ends 2048 bytes before the data, and a block of 8192 bytes contains parts of
    // both.
    let sample = Sample::new(Version::Luks1, 64, 0);
    for (block, slot, allowed) in [
        (1, 7, true),
        (4096, 7, true),
        (8192, 7, false),
        (8192, 6, true),
    ] {
        let added = change(&mut beside(&sample, block), Some(slot));
        assert_eq!(added.is_ok(), allowed, "blocks of {block}, keyslot {slot}");
        assert!(allowed || refused(added));
    }
    let mut full = beside(&sample.filled(8), 512);
    assert!(refused(change(&mut full, None)));
    full.remove_keyslot(1, false).unwrap();
    assert_eq!(change(&mut full, None).unwrap(), 1);
}

#[test]
fn priority_label_token_and_uuid() {
    let sample = Sample::new(Version::Luks2, 32, 2).filled(2);
    let change = |change: &dyn Fn(&mut Container)| {
        sample.cut(&["old"], &["old", "bystander 1"], |disk, undo| {
            change(&mut Container::open(disk, open_options(&undo)).unwrap());
        });
    };
    change(&|container| container.set_priority(1, Priority::Prefer).unwrap());
    change(&|container| {
        let token = luksmith_formats::json::json!({"type": "test", "keyslots": ["1"]});
        container.add_token(None, token, false).unwrap();
    });
    let label = Configure::new().label("a label".to_owned());
    change(&|container| container.configure(&label).unwrap());
    let uuid = Configure::new().uuid(uuid::Uuid::new_v4());
    change(&|container| container.configure(&uuid).unwrap());
    Sample::new(Version::Luks1, 32, 0).cut(&["old"], &["old"], |disk, undo| {
        Container::open(disk, open_options(&undo))
            .unwrap()
            .configure(&uuid)
            .unwrap();
    });
}

#[test]
fn restore() {
    for version in [Version::Luks1, Version::Luks2] {
        let sample = Sample::new(version, 32, 3);
        let backup = open(&sample.state).unwrap().backup().unwrap();
        // The passphrase was changed after the backup, so both areas of the backup have other
        // content now.
        let sample = sample.with(|container| {
            add(container, "old", "new", None);
            container.remove_keyslot(0, false).unwrap();
            add(container, "new", "newer", Some(0));
        });
        let (after, states) = sample.cut(&["old", "new"], &[], |disk, undo| {
            Container::restore(disk, &backup, RestoreOptions::new(), open_options(&undo)).unwrap();
        });
        assert!(states > 100);
        assert!(opens(&after, "old") && !opens(&after, "new"));
        assert!(
            after.disk[..backup.len()] == backup,
            "the backup is not what is there"
        );
    }
}

#[test]
fn restore_over_a_destroyed_header() {
    for version in [Version::Luks1, Version::Luks2] {
        let sample = Sample::new(version, 32, 3);
        let backup = open(&sample.state).unwrap().backup().unwrap();
        let mut destroyed = sample.state.clone();
        destroyed.disk[..40000].fill(0xa5);
        assert!(open(&destroyed).is_err());
        let (disk, undo, _) = destroyed.start();
        Container::restore(
            disk.clone(),
            &backup,
            RestoreOptions::new().other_uuid(true),
            open_options(&undo),
        )
        .unwrap();
        assert!(disk.bytes() == sample.state.disk);
    }
}

#[test]
fn convert() {
    let to_luks2 = Sample::new(Version::Luks1, 32, 0).filled(8);
    let (after, states) = to_luks2.cut(&["old"], &["old", "bystander 7"], |disk, undo| {
        Container::open(disk, open_options(&undo))
            .unwrap()
            .convert(Version::Luks2)
            .unwrap();
    });
    assert!(states > 100);
    assert_eq!(open(&after).unwrap().version(), Version::Luks2);
    let to_luks1 = Sample::new(Version::Luks2, 32, 9).filled(3);
    let (after, _) = to_luks1.cut(&["old"], &["old", "bystander 2"], |disk, undo| {
        Container::open(disk, open_options(&undo))
            .unwrap()
            .convert(Version::Luks1)
            .unwrap();
    });
    assert_eq!(open(&after).unwrap().version(), Version::Luks1);
}

#[test]
fn repair() {
    for (damage, expected) in [
        (100, Repaired::PrimaryCopy),
        (16384 + 5000, Repaired::SecondaryCopy),
    ] {
        let mut sample = Sample::new(Version::Luks2, 32, 2);
        sample.state.disk[damage] ^= 1;
        let (after, _) = sample.cut(&["old"], &["old"], |disk, undo| {
            assert_eq!(
                Container::repair(disk, open_options(&undo)).unwrap(),
                std::slice::from_ref(&expected)
            );
        });
        assert!(matches!(open(&after).unwrap().health(), Health::Good));
    }
}

/// A crash in the repair of an overwritten header leaves what can be repaired again.
#[test]
fn repair_of_an_overwritten_header() {
    let magic = [0; 6];
    let mut gpt = [0; 17408];
    gpt[512..520].copy_from_slice(b"EFI PART");
    type Damage<'a> = &'a [(usize, &'a [u8])];
    let cases: [(Version, Damage<'_>); 5] = [
        (Version::Luks2, &[(0, &magic), (16384, &magic)]),
        (Version::Luks2, &[(0, &gpt[..4096])]),
        (Version::Luks2, &[(0, &gpt)]),
        (Version::Luks1, &[(0, &magic)]),
        (Version::Luks1, &[(208 + 6 * 48, &[0xff; 96])]),
    ];
    for (version, damage) in cases {
        let mut sample = Sample::new(version, 32, 2);
        for (at, bytes) in damage {
            sample.state.disk[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        assert!(open(&sample.state).is_err());
        let repair = |state: &State, what: &str| {
            let (disk, undo, log) = state.start();
            let storage: Arc<dyn Backend> = disk.clone();
            let agree = |_: &[Doubt]| Ok::<(), HeaderError>(());
            let repaired = Container::repair_if(&storage, &open_options(&undo), agree);
            assert!(repaired.is_ok(), "{version:?}, {what}: {repaired:?}");
            let after = State {
                disk: disk.bytes(),
                undo: undo.record(),
                pin: undo.pin(),
            };
            assert!(after.undo.is_none(), "{version:?}, {what}");
            let container = open(&after).unwrap();
            assert!(matches!(container.health(), Health::Good));
            let unlocked = unlock(&container, "old").unwrap();
            assert_eq!(unlocked.key().as_bytes(), sample.key);
            log.lock().unwrap().clone()
        };
        let events = repair(&sample.state, "whole");
        states::for_each(&sample.state, &events, |state, what| {
            repair(state, what);
        });
    }
}

#[test]
fn a_change_with_one_copy_damaged() {
    // There is only one good copy, which must not be written first.
    for damage in [100, 16384 + 5000] {
        let mut sample = Sample::new(Version::Luks2, 32, 3);
        sample.state.disk[damage] ^= 1;
        change_passphrase(&sample);
    }
}

#[test]
fn erase() {
    for version in [Version::Luks1, Version::Luks2] {
        let sample = Sample::new(version, 32, 3).filled(2);
        let (disk, undo, log) = sample.state.start();
        Container::open(disk.clone(), open_options(&undo))
            .unwrap()
            .erase()
            .unwrap();
        let events = log.lock().unwrap().clone();
        // After a crash at any point of an erasure the header opens, and erasing again completes
        // it.
        states::for_each(&sample.state, &events, |state, what| {
            assert!(open(state).is_ok(), "{what}: does not open");
        });
        let after = State {
            disk: disk.bytes(),
            undo: undo.record(),
            pin: undo.pin(),
        };
        let erased = open(&after).unwrap();
        assert!(erased.keyslots().is_empty());
        for slot in open(&sample.state).unwrap().keyslots() {
            let area =
                usize::try_from(slot.area.start).unwrap()..usize::try_from(slot.area.end).unwrap();
            for (before, now) in sample.state.disk[area.clone()]
                .chunks(512)
                .zip(after.disk[area].chunks(512))
            {
                assert!(before != now, "key material is left");
            }
        }
    }
}

#[test]
fn resize() {
    for size in [8192, 4096] {
        for version in [Version::Luks1, Version::Luks2] {
            let sample = Sample::new(version, 32, 2);
            sample.cut(&["old"], &["old"], |disk, undo| {
                Container::open(disk.clone(), open_options(&undo))
                    .unwrap()
                    .resize(&*disk, size)
                    .unwrap_or_default();
                // Resizing to the present size writes nothing, so the recording gets a flush
                // instead.
                luksmith::backend::Backend::flush(&*disk).unwrap();
            });
        }
    }
}

#[test]
fn create() {
    for version in [Version::Luks1, Version::Luks2] {
        let before = State {
            disk: vec![0; 3 << 20],
            undo: None,
            pin: None,
        };
        let (disk, undo, log) = before.start();
        let mut options = CreateOptions::new(version, cost());
        options.key_size = 32;
        if version == Version::Luks2 {
            options.keyslots_size = Some(131_072 * 2);
        }
        Container::create(
            disk.clone(),
            options,
            open_options(&undo),
            &passphrase("new"),
            &Interrupt::default(),
        )
        .unwrap();
        let events = log.lock().unwrap().clone();
        // A partly written container does not open, or opens with its passphrase.
        let mut opened = 0;
        states::for_each(&before, &events, |state, what| {
            if let Ok(container) = open(state) {
                assert!(
                    unlock(&container, "new").is_some(),
                    "{what}: a header without its keyslot"
                );
                opened += 1;
            }
        });
        assert!(opened > 0);
    }
}

/// Positive control: if the undo record is removed from the recording, most states of the same
/// change lose the volume.
#[test]
fn without_the_undo_record_these_tests_fail() {
    let sample = Sample::new(Version::Luks1, 64, 0).filled(8);
    let (disk, undo, log) = sample.state.start();
    change(disk, undo, "old", "new");
    let mut events = log.lock().unwrap().clone();
    events.retain(|event| !matches!(event, Event::SaveUndo(_) | Event::ClearUndo));
    let mut lost = 0;
    let states = states::for_each(&sample.state, &events, |state, _| {
        lost += usize::from(!opens(state, "old") && !opens(state, "new"));
    });
    assert!(lost * 10 > states * 9, "{lost} of {states} states lost");
}
