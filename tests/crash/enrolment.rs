//! A keyslot and its token reach the header together: after a cut at any write of an enrolment,
//! both are there or neither is, and every passphrase from before opens.

use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::container::{Container, Header, NewKeyslot, Version};
use luksmith::tokens::recovery;
use luksmith_formats::json::{Value, json};

use crate::disk::{Disk, MemoryUndo, State};
use crate::states;
use crate::volume::{Sample, cost, open, open_options, passphrase, unlock};

/// Tokens as `key add` makes them, without keyslots.
fn tokens() -> [Value; 3] {
    let clevis = json!({
        "type": "clevis",
        "keyslots": [],
        "jwe": {"ciphertext": ("c".repeat(59)), "protected": ("p".repeat(1200)), "tag": "t"},
    });
    let tpm = json!({"type": "systemd-tpm2", "keyslots": [], "tpm2-blob": ("b".repeat(400))});
    [recovery::token(), clevis, tpm]
}

fn enrol(disk: Arc<Disk>, undo: Arc<MemoryUndo>, token: &Value) -> u32 {
    let mut container = Container::open(disk, open_options(&undo)).unwrap();
    let unlocked = unlock(&container, "old").unwrap();
    let made = passphrase("made");
    let new = NewKeyslot::new(&made, cost()).token(Some(token.clone()));
    container
        .add_keyslot(&unlocked, &new, &Interrupt::default())
        .unwrap()
}

/// Whether the keyslot and its token are there, after it was made sure that they are there
/// together.
fn is_enrolled(state: &State, slot: u32, what: &str) -> bool {
    // An undo record brings the header from before back, which `Sample::cut` checks.
    let Ok(container) = open(state) else {
        assert!(state.undo.is_some(), "{what}: does not open");
        return false;
    };
    let Header::Luks2(header) = container.header() else {
        panic!("{what}: another version");
    };
    let has_keyslot = container.keyslots().iter().any(|info| info.slot == slot);
    let tokens = header.metadata.tokens();
    let assigned: Vec<_> = tokens.values().map(|token| &token.keyslots[..]).collect();
    match has_keyslot {
        true => assert_eq!(assigned, [[slot]], "{what}: a keyslot without its token"),
        false => assert!(assigned.is_empty(), "{what}: a token without its keyslot"),
    }
    has_keyslot
}

#[test]
fn a_keyslot_and_its_token_are_there_together_or_not_at_all() {
    for token in tokens() {
        let sample = Sample::new(Version::Luks2, 32, 3).filled(2);
        let always = ["old", "bystander 1"];
        let (after, _) = sample.cut(&["old"], &always, |disk, undo| {
            enrol(disk, undo, &token);
        });
        let (disk, undo, log) = sample.state.start();
        let slot = enrol(disk, undo, &token);
        let events = log.lock().unwrap().clone();
        let (mut with, mut without) = (0, 0);
        states::for_each(&sample.state, &events, |state, what| {
            match is_enrolled(state, slot, what) {
                true => with += 1,
                false => without += 1,
            }
        });
        assert!(with > 10 && without > 10, "{with} and {without} states");
        assert!(is_enrolled(&after, slot, "the end"));
        assert!(unlock(&open(&after).unwrap(), "made").is_some());
    }
}
