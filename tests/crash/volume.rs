//! Small volumes, and the checks of a state that a crash has left.

use std::collections::HashSet;
use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::container::{
    Container, CreateOptions, NewKeyslot, OpenOptions, Undo, Unlocked, Version, Which,
};
use luksmith::kdf::calibrate::Cost;
use luksmith::secret::Passphrase;
use luksmith::trust::Pinned;
use luksmith_formats::Hash;
use luksmith_formats::trust::pin::Pin;
use sha2::{Digest as _, Sha256};

use crate::disk::{Disk, Log, MemoryPins, MemoryUndo, State, place};
use crate::states;

const PAYLOAD: usize = 4096;

pub(crate) fn passphrase(text: &str) -> Passphrase {
    Passphrase::copy_from(text.as_bytes()).unwrap()
}

/// The cheapest cost that cryptsetup accepts, since these tests are about writes.
pub(crate) fn cost() -> Cost {
    Cost::Pbkdf2 {
        hash: Hash::Sha256,
        iterations: 1000,
    }
}

pub(crate) fn open_options(undo: &Arc<MemoryUndo>) -> OpenOptions {
    OpenOptions::new(Undo::Store(undo.clone())).trust(undo.trust())
}

pub(crate) fn unlock(container: &Container, text: &str) -> Option<Unlocked> {
    container
        .unlock(&passphrase(text), Which::Any, &Interrupt::default())
        .ok()
}

pub(crate) fn add(container: &mut Container, by: &str, text: &str, slot: Option<u32>) -> u32 {
    let unlocked = unlock(container, by).unwrap();
    let new_passphrase = passphrase(text);
    let new = NewKeyslot::new(&new_passphrase, cost()).slot(slot);
    container
        .add_keyslot(&unlocked, &new, &Interrupt::default())
        .unwrap()
}

/// Changes the passphrase `by` to `text`, and returns the keyslot that `by` opened.
pub(crate) fn change(disk: Arc<Disk>, undo: Arc<MemoryUndo>, by: &str, text: &str) -> Option<u32> {
    let mut container = Container::open(disk, open_options(&undo)).unwrap();
    let unlocked = unlock(&container, by).unwrap();
    let new_passphrase = passphrase(text);
    let new = NewKeyslot::new(&new_passphrase, cost());
    container
        .change_keyslot(&unlocked, &new, &Interrupt::default())
        .unwrap();
    unlocked.slot()
}

/// A volume in its first state, and the content that every later state must have.
pub(crate) struct Sample {
    pub(crate) state: State,
    pub(crate) key: Vec<u8>,
    payload_offset: usize,
}

impl Sample {
    /// A volume that the passphrase `old` opens. With LUKS2 it has room for `areas` keyslots.
    pub(crate) fn new(version: Version, key_size: usize, areas: u64) -> Self {
        let mut options = CreateOptions::new(version, cost());
        options.key_size = key_size;
        options.digest_iterations = 1000;
        options.blank = true;
        if version == Version::Luks2 {
            let area = (key_size as u64 * 4000).next_multiple_of(4096);
            options.keyslots_size = Some(area * areas);
            options.data_offset = Some(2 * 16384 + area * areas);
        } else if key_size == 64 {
            // The space before the payload has no gap for another keyslot.
            options.data_offset = Some(4096 + 8 * 258_048);
        }
        let layout = options.layout().unwrap();
        let payload_offset = usize::try_from(layout.data_offset).unwrap();
        let mut disk = vec![0; payload_offset + PAYLOAD];
        disk[payload_offset..]
            .iter_mut()
            .enumerate()
            .for_each(|(index, byte)| *byte = (index * 7 % 251).to_le_bytes()[0]);
        let (disk, undo, _) = State::new(disk).start();
        let (_, unlocked) = Container::create(
            disk.clone(),
            options,
            open_options(&undo),
            &passphrase("old"),
            &Interrupt::default(),
        )
        .unwrap();
        let key = unlocked.key().as_bytes().to_vec();
        Self {
            state: State {
                disk: disk.bytes(),
                undo: None,
                pin: None,
            },
            key,
            payload_offset,
        }
    }

    /// The same volume after further changes.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Container)) -> Self {
        let (disk, undo, _) = self.state.start();
        let mut container = Container::open(disk.clone(), open_options(&undo)).unwrap();
        change(&mut container);
        self.state = State {
            disk: disk.bytes(),
            undo: undo.record(),
            pin: undo.pin(),
        };
        self
    }

    /// The same volume, which is pinned as it is now.
    pub(crate) fn pinned(mut self) -> Self {
        let container = open(&self.state).unwrap();
        let keys = container.key_prints(&unlock(&container, "old").unwrap());
        let pins = Arc::new(MemoryPins::new(Vec::new(), Log::default()));
        let pinned = Pinned::new(pins.clone(), place());
        pinned
            .init(&container.facts().unwrap(), &keys.unwrap())
            .unwrap();
        self.state.pin = Some(pins.pin());
        self
    }

    pub(crate) fn filled(self, slots: u32) -> Self {
        self.with(|container| {
            for slot in 1..slots {
                add(container, "old", &format!("bystander {slot}"), Some(slot));
            }
        })
    }

    /// Executes `change`, and checks each state that a crash in it can leave: one of `either` opens
    /// it, and every one of `always` does. Returns the state after the change, and the number of
    /// states.
    pub(crate) fn cut(
        &self,
        either: &[&str],
        always: &[&str],
        change: impl FnOnce(Arc<Disk>, Arc<MemoryUndo>),
    ) -> (State, usize) {
        let (disk, undo, log) = self.state.start();
        change(disk.clone(), undo.clone());
        let events = log.lock().unwrap().clone();
        assert!(!events.is_empty(), "the change wrote nothing");
        let mut verdicts = Verdicts::default();
        let states = states::for_each(&self.state, &events, |state, what| {
            self.check(state, either, always, what, &mut verdicts);
        });
        let after = State {
            disk: disk.bytes(),
            undo: undo.record(),
            pin: undo.pin(),
        };
        assert!(after.undo.is_none(), "the undo record outlives the change");
        if let Some(pin) = &after.pin {
            let pin = Pin::parse(pin).unwrap();
            assert!(pin.next.is_none(), "the pin is not settled");
            assert_eq!(pin.current, open(&after).unwrap().facts().unwrap());
            assert_eq!(pin.keys.len(), 1);
        }
        (after, states)
    }

    /// Checks one state that a crash has left, as [`cut`](Self::cut) does.
    pub(crate) fn survives(&self, state: &State, either: &[&str], what: &str) {
        self.check(state, either, &[], what, &mut Verdicts::default());
    }

    fn check(
        &self,
        state: &State,
        either: &[&str],
        always: &[&str],
        what: &str,
        verdicts: &mut Verdicts,
    ) {
        let state = self.recovered(state, what, verdicts);
        let container =
            open(&state).unwrap_or_else(|error| panic!("{what}: does not open: {error:?}"));
        let data_offset = usize::try_from(container.data_segment().unwrap().offset).unwrap();
        assert_eq!(
            data_offset, self.payload_offset,
            "{what}: the data has moved"
        );
        assert!(
            state.disk[data_offset..][..PAYLOAD] == self.state.disk[data_offset..][..PAYLOAD],
            "{what}: the payload has changed"
        );
        // Whether a passphrase opens depends only on the keyslots and their areas, so each
        // combination is tried once.
        let mut combination = Sha256::new();
        for slot in container.keyslots() {
            combination.update(format!("{slot:?}"));
            let area =
                usize::try_from(slot.area.start).unwrap()..usize::try_from(slot.area.end).unwrap();
            combination.update(&state.disk[area]);
        }
        if !verdicts.seen.insert(combination.finalize().to_vec()) {
            return;
        }
        let opens = |text: &&str| {
            let Some(unlocked) = unlock(&container, text) else {
                return false;
            };
            assert_eq!(
                unlocked.key().as_bytes(),
                self.key,
                "{what}: another volume key"
            );
            true
        };
        assert!(either.iter().any(opens), "{what}: none of {either:?} opens");
        for text in always {
            assert!(opens(text), "{what}: {text} does not open");
        }
    }

    /// The result of `header repair` on a state with an undo record. A crash in the repair is
    /// repaired again.
    fn recovered(&self, state: &State, what: &str, verdicts: &mut Verdicts) -> State {
        if state.undo.is_none() {
            return state.clone();
        }
        let (disk, undo, log) = state.start();
        let repaired = Container::repair(disk.clone(), open_options(&undo));
        assert!(repaired.is_ok(), "{what}: no repair: {repaired:?}");
        let whole = State {
            disk: disk.bytes(),
            undo: undo.record(),
            pin: undo.pin(),
        };
        // A crash in the repair leaves states of the same kind, so a sample is enough.
        verdicts.repairs += 1;
        if !verdicts.repairs.is_multiple_of(16) {
            return whole;
        }
        let events = log.lock().unwrap().clone();
        let mut halfway = state.clone();
        events[..events.len() / 2]
            .iter()
            .for_each(|event| halfway.apply(event));
        let (disk, undo, _) = halfway.start();
        let repaired = Container::repair(disk.clone(), open_options(&undo));
        assert!(repaired.is_ok(), "{what}: no second repair: {repaired:?}");
        assert!(
            disk.bytes() == whole.disk,
            "{what}: a cut in the repair leads elsewhere"
        );
        whole
    }
}

/// The states that were checked already.
#[derive(Default)]
struct Verdicts {
    /// The keyslots and areas whose passphrases were tried, by digest.
    seen: HashSet<Vec<u8>>,
    repairs: usize,
}

pub(crate) fn open(state: &State) -> Result<Container, luksmith::container::OpenError> {
    let (disk, undo, _) = state.start();
    Container::open(disk, open_options(&undo))
}
