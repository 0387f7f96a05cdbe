//! Another program changes the header between a crash and the repair.
//!
//! For every change that keeps an undo record, these tests take states that a crash in it can
//! leave. In each state another program then changes, adds or removes a passphrase, sets a label,
//! or only opens the volume: cryptsetup, which rewrites a damaged or older copy of the header when
//! it opens it, or luksmith itself after its record was moved away. The repair then keeps every
//! passphrase that opens, and brings no removed passphrase back. Otherwise it is refused and writes
//! nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::container::{
    CommitError, Configure, Container, HeaderError, Kept, NewKeyslot, Repaired, RestoreOptions,
    Settled, UndoError, Unlocked, Unproven, Version,
};

use crate::disk::{Disk, MemoryUndo, State};
use crate::states;
use crate::volume::{Sample, add, change, cost, open, open_options, passphrase, unlock};
use support::peers;

/// The passphrase that the other program adds.
const THIRD: &str = "third";

/// States of a change that are tried.
const TRIED: usize = 6;

/// What the other program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    Change,
    Add,
    Remove,
    Label,
    Open,
}

const OTHERS: [Other; 3] = [Other::Change, Other::Add, Other::Remove];
/// What needs no passphrase.
const WITHOUT_KEY: [Other; 2] = [Other::Label, Other::Open];

/// Something that changes the header of the disk with this passphrase, or fails. It removes the
/// keyslot of the second passphrase.
trait Program {
    fn run(&self, other: Other, disk: &[u8], by: &str, removed: Option<(&str, u32)>) -> Vec<u8>;
}

/// luksmith, which does not know of the record.
struct Luksmith;

impl Program for Luksmith {
    fn run(&self, other: Other, disk: &[u8], by: &str, removed: Option<(&str, u32)>) -> Vec<u8> {
        let (disk, undo, _) = without_record(disk).start();
        if let Other::Label = other {
            if let Ok(mut container) = Container::open(disk.clone(), open_options(&undo)) {
                // LUKS1 has no label.
                drop(container.configure(&Configure::new().label("a label".to_owned())));
            }
        } else if let Ok(mut container) = Container::open(disk.clone(), open_options(&undo))
            && let Some(unlocked) = unlock(&container, by)
        {
            let third = passphrase(THIRD);
            let new = NewKeyslot::new(&third, cost());
            let interrupt = Interrupt::default();
            // A header without room is not changed.
            match other {
                Other::Change => drop(container.change_keyslot(&unlocked, &new, &interrupt)),
                Other::Add => drop(container.add_keyslot(&unlocked, &new, &interrupt)),
                Other::Remove => removed
                    .into_iter()
                    .for_each(|(_, slot)| container.remove_keyslot(slot, false).unwrap()),
                Other::Label | Other::Open => {}
            }
        }
        disk.bytes()
    }
}

struct Cryptsetup {
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Cryptsetup {
    fn find() -> Option<Self> {
        Some(Self {
            program: peers::find("cryptsetup")?,
            folder: tempfile::tempdir().unwrap(),
        })
    }
}

impl Program for Cryptsetup {
    fn run(&self, other: Other, disk: &[u8], by: &str, removed: Option<(&str, u32)>) -> Vec<u8> {
        let path = |name: &str| self.folder.path().join(name);
        for (name, text) in [("by", by), ("third", THIRD)] {
            std::fs::write(path(name), text).unwrap();
        }
        std::fs::write(path("disk"), disk).unwrap();
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder).arg("-q");
        match (other, removed) {
            (Other::Change, _) => command.args(["luksChangeKey", "disk", "third"]),
            (Other::Add, _) => command.args(["luksAddKey", "disk", "third"]),
            (Other::Remove, Some((_, slot))) => {
                command.args(["luksKillSlot", "disk", &slot.to_string()])
            }
            (Other::Remove, None) => return disk.to_vec(),
            (Other::Label, _) => command.args(["config", "disk", "--label", "a label"]),
            (Other::Open, _) => command.args(["open", "--test-passphrase", "disk"]),
        };
        if !matches!(other, Other::Label) {
            command.args(["--key-file", "by"]);
        }
        if matches!(other, Other::Change | Other::Add) {
            command.args(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]);
        }
        // A header that it does not accept, or without room, is not changed.
        peers::output(&mut command);
        read(&path("disk"))
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

fn without_record(disk: &[u8]) -> State {
    let disk = disk.to_vec();
    State::new(disk)
}

fn opened(disk: &[u8], text: &str) -> Option<Unlocked> {
    unlock(&open(&without_record(disk)).ok()?, text)
}

fn all_open<'a>(disk: &[u8], passphrases: &[&'a str]) -> Vec<&'a str> {
    let mut open = passphrases.to_vec();
    open.retain(|text| opened(disk, text).is_some());
    open
}

/// The outcomes that were seen.
#[derive(Debug, Default)]
struct Seen {
    accepted: usize,
    /// Accepted, and key material was put back.
    put_back: usize,
    refused: usize,
    /// Refused, although the other program has touched no keyslot.
    refused_without_key: usize,
}

/// Changes the sample, and lets each program change each chosen state.
fn between(sample: &Sample, before: &[&str], run: impl FnOnce(Arc<Disk>, Arc<MemoryUndo>)) -> Seen {
    let (disk, undo, log) = sample.state.start();
    run(disk, undo);
    let events = log.lock().unwrap().clone();
    let mut with_record = 0;
    states::for_each(&sample.state, &events, |state, _| {
        with_record += usize::from(state.undo.is_some());
    });
    let programs: Vec<Box<dyn Program>> = [Some(Box::new(Luksmith) as Box<dyn Program>)]
        .into_iter()
        .chain([Cryptsetup::find().map(|found| Box::new(found) as _)])
        .flatten()
        .collect();
    let (mut number, mut seen) = (0, Seen::default());
    states::for_each(&sample.state, &events, |state, what| {
        if state.undo.is_none() {
            return;
        }
        number += 1;
        // The first one is before the first write.
        if number == 1 || number % (with_record / TRIED).max(1) == 0 {
            for program in &programs {
                for other in OTHERS {
                    let what = format!("{what}, then {other:?}");
                    changed_by(&**program, other, state, before, &what, &mut seen);
                }
            }
        }
    });
    // Without a torn write.
    let mut state = sample.state.clone();
    for (number, event) in events.iter().enumerate() {
        state.apply(event);
        for (program, other) in programs
            .iter()
            .flat_map(|program| WITHOUT_KEY.map(|other| (program, other)))
            .filter(|_| state.undo.is_some())
        {
            let what = format!("after event {number}, then {other:?}");
            changed_by(&**program, other, &state, before, &what, &mut seen);
        }
    }
    seen
}

fn changed_by(
    program: &dyn Program,
    other: Other,
    state: &State,
    before: &[&str],
    what: &str,
    seen: &mut Seen,
) {
    let passphrases: Vec<&str> = before.iter().copied().chain([THIRD]).collect();
    let could = all_open(&state.disk, &passphrases);
    let needs_no_key = WITHOUT_KEY.contains(&other);
    let by = match could.first() {
        Some(by) => by,
        None if needs_no_key => "none",
        None => return,
    };
    let last = could.last().filter(|last| **last != by);
    let slot = last.map(|last| opened(&state.disk, last).unwrap().slot().unwrap());
    let removed = last.copied().zip(slot);
    let disk = program.run(other, &state.disk, by, removed);
    if disk == state.disk {
        return;
    }
    let can = all_open(&disk, &passphrases);
    let undo = state.undo.clone();
    let changed = State {
        disk,
        undo,
        pin: None,
    };

    let (disk, undo, _) = changed.start();
    match Container::repair(disk.clone(), open_options(&undo)) {
        Ok(repaired) => {
            seen.accepted += 1;
            let put_back = repaired.iter().any(|repair| {
                let Repaired::Interrupted { settled, .. } = repair else {
                    return false;
                };
                matches!(settled, Settled::PutBack { .. })
            });
            seen.put_back += usize::from(put_back);
            let now = all_open(&disk.bytes(), &passphrases);
            // The keyslot that was being changed opens again.
            assert!(
                !put_back || now.len() > can.len(),
                "{what}: {now:?}, {can:?}"
            );
            for text in &passphrases {
                let (could, can) = (could.contains(text), can.contains(text));
                assert!(!can || now.contains(text), "{what}: {text} does not open");
                let is_removed = could && !can;
                assert!(!is_removed || !now.contains(text), "{what}: {text} is back");
            }
        }
        Err(HeaderError::Commit(CommitError::Undo(UndoError::Changed { .. }))) => {
            seen.refused += 1;
            seen.refused_without_key += usize::from(needs_no_key);
            assert!(disk.bytes() == changed.disk, "{what}: written");
            assert_eq!(undo.record(), changed.undo, "{what}");
            chosen(&changed, &can, &passphrases, what);
        }
        Err(error) => panic!("{what}: {error:?}"),
    }
}

/// A refused repair, with both choices.
fn chosen(changed: &State, can: &[&str], passphrases: &[&str], what: &str) {
    let (disk, undo, _) = changed.start();
    match Container::settle(&*disk, &open_options(&undo), Unproven::Discard) {
        Ok(Some(Repaired::Interrupted { settled, .. })) => {
            assert!(matches!(settled, Settled::Discarded { .. }), "{what}");
            assert!(undo.record().is_none(), "{what}");
            let kept = (Kept::Record, changed.undo.clone().unwrap());
            assert!(undo.copies() == [kept], "{what}: no copy of the record");
        }
        // The header cannot be read, so its record is all that is left of it.
        Err(CommitError::Undo(UndoError::NoHeader { .. })) => assert!(can.is_empty(), "{what}"),
        settled => panic!("{what}: {settled:?}"),
    }
    assert!(disk.bytes() == changed.disk, "{what}: written");

    let (disk, undo, _) = changed.start();
    let applied = Container::settle(&*disk, &open_options(&undo), Unproven::Apply).unwrap();
    assert!(
        matches!(
            applied,
            Some(Repaired::Interrupted {
                settled: Settled::Applied { .. },
                ..
            })
        ),
        "{what}: {applied:?}"
    );
    assert!(!all_open(&disk.bytes(), passphrases).is_empty(), "{what}");
    // With the copy, the other program's header is there again.
    let mut again = disk.bytes();
    for (kept, copy) in undo.copies() {
        assert_eq!(kept, Kept::Header);
        again[..copy.len()].copy_from_slice(&copy);
    }
    assert!(
        again == changed.disk,
        "{what}: the copy is not what was there"
    );
}

#[test]
fn change_luks1_with_all_slots_full() {
    let sample = Sample::new(Version::Luks1, 64, 0).filled(8);
    let seen = between(
        &sample,
        &["old", "new", "bystander 1", "bystander 7"],
        |disk, undo| {
            change(disk, undo, "old", "new");
        },
    );
    // The keyslot itself is removed by nothing here, so its key material can be put back.
    assert!(seen.accepted > 3 && seen.put_back > 3, "{seen:?}");
}

#[test]
fn change_luks2_without_room() {
    let sample = Sample::new(Version::Luks2, 32, 2).filled(2);
    let seen = between(&sample, &["old", "new", "bystander 1"], |disk, undo| {
        change(disk, undo, "old", "new");
    });
    assert!(seen.accepted > 3 && seen.put_back > 3, "{seen:?}");
    assert_eq!(seen.refused_without_key, 0, "{seen:?}");
}

/// While its key material is overwritten, no passphrase opens such a volume.
#[test]
fn change_luks2_with_its_only_keyslot() {
    let sample = Sample::new(Version::Luks2, 32, 1);
    let seen = between(&sample, &["old", "new"], |disk, undo| {
        change(disk, undo, "old", "new");
    });
    assert!(seen.accepted > 3 && seen.put_back > 0, "{seen:?}");
    assert_eq!(seen.refused_without_key, 0, "{seen:?}");
}

#[test]
fn restore() {
    for version in [Version::Luks1, Version::Luks2] {
        let sample = Sample::new(version, 32, 4);
        let backup = open(&sample.state).unwrap().backup().unwrap();
        let sample = sample.with(|container| {
            add(container, "old", "new", None);
            container.remove_keyslot(0, false).unwrap();
            add(container, "new", "newer", Some(0));
        });
        let seen = between(&sample, &["old", "new", "newer"], |disk, undo| {
            Container::restore(disk, &backup, RestoreOptions::new(), open_options(&undo)).unwrap();
        });
        assert!(seen.refused > 3, "{version}: {seen:?}");
    }
}

#[test]
fn convert() {
    for (from, to) in [
        (Version::Luks1, Version::Luks2),
        (Version::Luks2, Version::Luks1),
    ] {
        let sample = Sample::new(from, 32, 9).filled(3);
        let seen = between(
            &sample,
            &["old", "bystander 1", "bystander 2"],
            |disk, undo| {
                let mut container = Container::open(disk, open_options(&undo)).unwrap();
                container.convert(to).unwrap();
            },
        );
        assert!(seen.refused > 3, "{from} to {to}: {seen:?}");
    }
}
