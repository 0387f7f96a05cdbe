//! The changes of a header whose volume is pinned: each state that a crash can leave is accepted,
//! and an open settles the pin on it. What no change of ours leaves is refused.

use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::Backend;
use luksmith::container::{
    BeginReencryption, CommitError, Configure, Container, Doubt, HeaderError, OpenError,
    RestoreOptions, Version,
};
use luksmith::reencrypt::{Reencrypt, Resume};
use luksmith::trust::TrustError;
use luksmith_formats::luks2::{Priority, Resilience};
use luksmith_formats::trust::pin::{Difference, Pin};
use luksmith_formats::{CipherSpec, json};

use crate::disk::{Event, State};
use crate::states;
use crate::volume::{Sample, add, change, cost, open, open_options, passphrase, unlock};

fn changed(sample: Sample) {
    sample.pinned().cut(&["old", "new"], &[], |disk, undo| {
        change(disk, undo, "old", "new");
    });
}

#[test]
fn change_luks1() {
    changed(Sample::new(Version::Luks1, 32, 0));
    changed(Sample::new(Version::Luks1, 64, 0).filled(8));
}

#[test]
fn change_luks2() {
    changed(Sample::new(Version::Luks2, 32, 3));
    changed(Sample::new(Version::Luks2, 32, 2).filled(2));
}

/// Keyslot 6 of LUKS1 crosses the boundary of two sectors, and an erasure writes both.
#[test]
fn add_remove_and_erase_what_is_in_two_sectors() {
    for slot in [6, 7] {
        let sample = Sample::new(Version::Luks1, 32, 0).pinned();
        sample.cut(&["old"], &["old"], |disk, undo| {
            let mut container = Container::open(disk, open_options(&undo)).unwrap();
            add(&mut container, "old", "new", Some(slot));
        });
    }
    let sample = Sample::new(Version::Luks1, 32, 0).filled(7).pinned();
    sample.cut(&["old"], &["old"], |disk, undo| {
        let mut container = Container::open(disk, open_options(&undo)).unwrap();
        container.remove_keyslot(6, false).unwrap();
    });
    for version in [Version::Luks1, Version::Luks2] {
        let sample = Sample::new(version, 32, 8).filled(8).pinned();
        let (disk, undo, log) = sample.state.start();
        let mut container = Container::open(disk, open_options(&undo)).unwrap();
        container.erase().unwrap();
        let events = log.lock().unwrap().clone();
        states::for_each(&sample.state, &events, |state, what| {
            let found = open(state).map(drop);
            assert!(found.is_ok(), "{version}, {what}: {found:?}");
        });
    }
}

#[test]
fn settings_of_luks2() {
    let sample = Sample::new(Version::Luks2, 32, 2).filled(2).pinned();
    let change = |change: &dyn Fn(&mut Container)| {
        sample.cut(&["old"], &["old"], |disk, undo| {
            change(&mut Container::open(disk, open_options(&undo)).unwrap());
        });
    };
    change(&|container| container.set_priority(1, Priority::Prefer).unwrap());
    change(&|container| {
        let token = json::json!({"type": "test", "keyslots": ["1"]});
        container.add_token(None, token, false).unwrap();
    });
    let label = Configure::new().label("a label".to_owned());
    change(&|container| container.configure(&label).unwrap());
}

#[test]
fn restore_convert_and_repair() {
    for version in [Version::Luks1, Version::Luks2] {
        let sample = Sample::new(version, 32, 3);
        let backup = open(&sample.state).unwrap().backup().unwrap();
        let sample = sample.with(|container| {
            add(container, "old", "new", None);
        });
        let sample = sample.pinned();
        sample.cut(&["old"], &["old"], |disk, undo| {
            let allow = RestoreOptions::new();
            Container::restore(disk, &backup, allow, open_options(&undo)).unwrap();
        });
        let other = Sample::new(version, 32, 3);
        let backup = open(&other.state).unwrap().backup().unwrap();
        let (disk, undo, _) = sample.state.start();
        let allow = RestoreOptions::new().other_uuid(true).other_key(true);
        let refused = Container::restore(disk, &backup, allow, open_options(&undo));
        let Err(HeaderError::Commit(CommitError::Trust(refused))) = refused.map(drop) else {
            panic!("the header of another volume is restored");
        };
        assert!(
            matches!(refused, TrustError::OtherVolume { .. }),
            "{refused}"
        );
    }
    for (sample, to) in [
        (Sample::new(Version::Luks1, 32, 0).filled(3), Version::Luks2),
        (Sample::new(Version::Luks2, 32, 9).filled(3), Version::Luks1),
    ] {
        sample.pinned().cut(&["old"], &["old"], |disk, undo| {
            let mut container = Container::open(disk, open_options(&undo)).unwrap();
            container.convert(to).unwrap();
        });
    }
    for damage in [100, 16384 + 5000] {
        let mut sample = Sample::new(Version::Luks2, 32, 2).pinned();
        sample.state.disk[damage] ^= 1;
        sample.cut(&["old"], &["old"], |disk, undo| {
            Container::repair(disk, open_options(&undo)).unwrap();
        });
    }
}

/// What another program has overwritten is put back only if that is the pinned header.
#[test]
fn a_mended_header_is_the_pinned_one() {
    for version in [Version::Luks1, Version::Luks2] {
        let mend = |state: &State| {
            let (disk, undo, _) = state.start();
            let storage: Arc<dyn Backend> = disk;
            let agree = |_: &[Doubt]| Ok::<(), HeaderError>(());
            let repaired = Container::repair_if(&storage, &open_options(&undo), agree);
            repaired.map(|_| {
                let opened = Container::open(storage, open_options(&undo));
                assert!(opened.is_ok(), "{version}: {opened:?}");
            })
        };
        let sample = Sample::new(version, 32, 3);
        let older = sample.state.disk.clone();
        let sample = sample.with(|container| {
            add(container, "old", "new", None);
        });
        let mut sample = sample.pinned();
        let wipe = |state: &mut State| {
            for at in [0, 16384] {
                if state.disk[at..at + 4] == *b"LUKS" || state.disk[at..at + 4] == *b"SKUL" {
                    state.disk[at..at + 6].fill(0);
                }
            }
        };
        wipe(&mut sample.state);
        mend(&sample.state).unwrap();
        sample.state.disk = older;
        wipe(&mut sample.state);
        let refused = mend(&sample.state).unwrap_err();
        let HeaderError::Commit(CommitError::Trust(TrustError::Changed(_))) = refused else {
            panic!("{version}: {refused:?}");
        };
    }
}

#[test]
fn a_reencryption_keeps_the_pin() {
    let sample = Sample::new(Version::Luks2, 32, 4).pinned();
    let (disk, undo, log) = sample.state.start();
    let storage: Arc<dyn Backend> = disk.clone();
    let mut container = Container::open(storage.clone(), open_options(&undo)).unwrap();
    let cipher = CipherSpec::AES_XTS_PLAIN64;
    let journal = Resilience::Journal;
    let old = passphrase("old");
    let mut begin = BeginReencryption::new(cipher, 32, 512, cost(), journal, 4096);
    begin.keyslots = vec![(0, &old)];
    let unlocked = unlock(&container, "old").unwrap();
    let keys = container.begin_reencryption(&unlocked, &begin, &Interrupt::new());
    let mut engine =
        Reencrypt::resume(container, storage, &keys.unwrap(), Resume::default()).unwrap();
    while engine.step().unwrap() > 0 {}
    let container = engine.finish().unwrap();
    assert!(unlock(&container, "old").is_some());
    let events = log.lock().unwrap().clone();
    let mut both = 0;
    let all = states::for_each(&sample.state, &events, |state, what| {
        let (disk, undo, _) = state.start();
        let opened = Container::open(disk, open_options(&undo));
        let container = opened.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let pin = Pin::parse(&undo.pin().unwrap()).unwrap();
        assert!(pin.next.is_none(), "{what}: the pin is not settled");
        assert_eq!(pin.current, container.facts().unwrap(), "{what}");
        both += usize::from(pin.keys.len() == 2);
        let begun = matches!(container.reencryption(), Ok(Some(_)));
        assert_eq!(pin.keys.len() == 2, begun, "{what}");
    });
    assert!(both > 10 && both < all, "{both} of {all}");
    let pin = Pin::parse(&undo.pin().unwrap()).unwrap();
    assert_eq!(
        pin.keys,
        container
            .key_prints(&unlock(&container, "old").unwrap())
            .unwrap()
    );
}

/// Positive control: without what is written to the pin, the states of a change are refused.
#[test]
fn without_a_pin_of_both_headers_these_tests_fail() {
    let sample = Sample::new(Version::Luks2, 32, 3).pinned();
    let (disk, undo, log) = sample.state.start();
    change(disk, undo, "old", "new");
    let mut events = log.lock().unwrap().clone();
    events.retain(|event| !matches!(event, Event::SavePin(_)));
    let mut refused = 0;
    let states = states::for_each(&sample.state, &events, |state, _| {
        let found = open(state).map(drop);
        refused += usize::from(matches!(found, Err(OpenError::Trust(_))));
    });
    assert!(refused > 10 && refused < states, "{refused} of {states}");
}

/// The header from before a change is refused after it, and told as an old one.
#[test]
fn an_old_header_is_refused() {
    for version in [Version::Luks1, Version::Luks2] {
        let sample = Sample::new(version, 32, 3).pinned();
        let (mut after, _) = sample.cut(&["old", "new"], &[], |disk, undo| {
            change(disk, undo, "old", "new");
        });
        after.disk = sample.state.disk.clone();
        let Err(OpenError::Trust(TrustError::Changed(differences))) = open(&after).map(drop) else {
            panic!("{version}: the old header is accepted");
        };
        let rolled_back = |one: &Difference| matches!(one, Difference::RolledBack { .. });
        let of_luks2 = version == Version::Luks2;
        assert_eq!(
            differences.iter().any(rolled_back),
            of_luks2,
            "{differences:?}"
        );
    }
}

/// Key material is compared too, before any key derivation: the header does not change with it.
#[test]
fn other_key_material_is_refused() {
    for version in [Version::Luks1, Version::Luks2] {
        let mut sample = Sample::new(version, 32, 3).filled(2).pinned();
        let area = open(&sample.state).unwrap().keyslots()[1].area.clone();
        sample.state.disk[usize::try_from(area.start).unwrap() + 700] ^= 1;
        let refused = open(&sample.state).map(drop).unwrap_err();
        let OpenError::Trust(refused) = refused else {
            panic!("{version}: {refused:?}");
        };
        let words = refused.differences().iter().map(ToString::to_string);
        let words: Vec<_> = words.collect();
        assert_eq!(words, ["the key material of keyslot 1 was changed"]);
    }
}
