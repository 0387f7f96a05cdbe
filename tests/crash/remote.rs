//! Crashes of an NBD server: it dies permanently at each write and each flush of a header change.
//!
//! In one half of the runs it has stored everything that it received before. In the other half it
//! loses everything that was not flushed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use luksmith::Interrupt;
use luksmith::backend::nbd::{ConnectOptions, NbdBackend};
use luksmith::container::{Container, KeyslotError, NewKeyslot, Version};
use luksmith_formats::nbd::Command;

use crate::disk::{MemoryUndo, State};
use crate::volume::{Sample, cost, open_options, passphrase, unlock};
use support::nbd_server::{Action, FakeServer, Shape};

/// A server that dies at change or flush number `at`, and every later one too.
fn dying(state: &State, at: usize, loses_its_cache: bool) -> FakeServer {
    let shape = Shape {
        size: state.disk.len(),
        ..Shape::default()
    };
    let count = AtomicUsize::new(0);
    FakeServer::with_disk(shape, state.disk.clone(), move |seen| {
        let changes = seen.request.command != Command::Read;
        if !changes || count.fetch_add(1, Ordering::SeqCst) < at {
            Action::Serve
        } else if loses_its_cache {
            Action::Die
        } else {
            Action::HangUp { carried_out: false }
        }
    })
}

fn try_to_change(fake: &FakeServer, undo: &Arc<MemoryUndo>) -> Result<u32, KeyslotError> {
    let options = ConnectOptions::new()
        .write(true)
        .timeout(Duration::from_millis(50));
    // Each run waits this long for a server that died. On a busy machine, a living server may be
    // slower.
    let mut container = (0..100)
        .find_map(|_| {
            let storage = NbdBackend::connect(fake.uri(), options).ok()?;
            Container::open(Arc::new(storage), open_options(undo)).ok()
        })
        .expect("a server that lives");
    let unlocked = unlock(&container, "old").unwrap();
    let new_passphrase = passphrase("new");
    let new = NewKeyslot::new(&new_passphrase, cost());
    container.change_keyslot(&unlocked, &new, &Interrupt::default())
}

/// Returns the number of requests at which the server died.
fn server_dies(sample: &Sample, loses_its_cache: bool) -> usize {
    for at in 0.. {
        let fake = dying(&sample.state, at, loses_its_cache);
        let (_, undo, _) = sample.state.start();
        let changed = try_to_change(&fake, &undo);
        let after = State {
            disk: if loses_its_cache {
                fake.stored()
            } else {
                fake.cached()
            },
            undo: undo.record(),
            pin: None,
        };
        let what = format!("died at {at}: {changed:?}");
        match changed {
            Ok(_) => {
                sample.survives(&after, &["new"], &what);
                return at;
            }
            Err(_) => sample.survives(&after, &["old", "new"], &what),
        }
    }
    unreachable!("a change has an end")
}

#[test]
fn with_room_for_another_keyslot() {
    for loses_its_cache in [false, true] {
        for (version, areas) in [(Version::Luks1, 0), (Version::Luks2, 3)] {
            let sample = Sample::new(version, 32, areas);
            assert!(server_dies(&sample, loses_its_cache) > 4);
        }
    }
}

#[test]
fn in_place_with_an_undo_record() {
    for loses_its_cache in [false, true] {
        let sample = Sample::new(Version::Luks2, 32, 2).filled(2);
        assert!(server_dies(&sample, loses_its_cache) > 4);
    }
}
