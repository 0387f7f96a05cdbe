//! Plaintext that is encrypted in place in a file is moved first, to make room for the header: each
//! state that a cut can leave of the move, of its reversal and of the header is taken up again.
//!
//! The disk of these tests moves its content as ext4 and XFS do (seen on both, shut down in the
//! middle of `fallocate`): the size grows first, then extents move one after the other, from the
//! last one on. A move back begins with the first one, and changes the size last.

use std::ops::Range;
use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::room::Room;
use luksmith::backend::{Backend, IoError};
use luksmith::container::{
    BeginEncryption, Container, CreateOptions, OpenError, OpenOptions, Undo, UndoStore, Version,
    Which,
};
use luksmith::reencrypt::{
    Reencrypt, Resume, RoomError, RoomSettled, area_size, begin_with_room, is_room_record,
    settle_room,
};
use luksmith::sectors::{Cipher, Sectors};
use uuid::Uuid;

use crate::disk::{Disk, Event, MemoryUndo, State};
use crate::reencryption::{ZONE, checksum};
use crate::states;
use crate::volume::{cost, passphrase};

const ROOM: u64 = 1 << 20;
const SIZE: usize = (2 << 20) + (64 << 10) + 512;
/// Where extents begin: within pieces that are hashed, at their borders, and around holes.
const EXTENTS: [usize; 5] = [0, 8192, 1 << 20, (1 << 20) + 4096, (2 << 20) + 4096];

/// Plaintext with a hole, whose place in a move is not certain, and a last partial block.
fn plaintext() -> Vec<u8> {
    let byte = |at: usize| (at / 512 * 31 + at % 251 + 1).to_le_bytes()[0];
    let mut bytes: Vec<_> = (0..SIZE).map(byte).collect();
    bytes[(1 << 20) - 8192..(1 << 20) + 4096].fill(0);
    bytes
}

impl Room for Disk {
    fn can_insert(&self, _: u64) -> Result<(), IoError> {
        Ok(())
    }

    fn insert(&self, length: u64) -> Result<(), IoError> {
        let length = usize::try_from(length).unwrap();
        let old = self.bytes();
        let mut now = old.clone();
        now.resize(old.len() + length, 0);
        self.replace(now);
        let starts = EXTENTS.iter().filter(|start| **start < old.len());
        for start in starts.rev() {
            self.replace(split(&old, *start, length));
        }
        Ok(())
    }

    fn remove(&self, range: Range<u64>) -> Result<(), IoError> {
        if range.end == self.geometry().size {
            return self.resize(range.start);
        }
        let start = usize::try_from(range.start).unwrap();
        let length = usize::try_from(range.end - range.start).unwrap();
        let mut old = self.bytes();
        old.drain(start..start + length);
        // What is removed is freed first.
        for moved in EXTENTS.iter().filter(|extent| **extent >= start) {
            self.replace(split(&old, *moved, length));
        }
        self.replace(old);
        Ok(())
    }
}

/// The content, with everything from `at` on moved by `length` bytes.
fn split(old: &[u8], at: usize, length: usize) -> Vec<u8> {
    [&old[..at], &vec![0; length], &old[at..]].concat()
}

fn options() -> CreateOptions {
    let mut options = CreateOptions::new(Version::Luks2, cost());
    options.key_size = 32;
    options.keyslots_size = Some((256 << 10) - 32768);
    options.data_offset = Some(ROOM);
    options.blank = true;
    options.uuid = Some(Uuid::from_u128(7));
    options
}

fn undo_options(undo: &Arc<MemoryUndo>) -> OpenOptions {
    OpenOptions::new(Undo::Store(undo.clone()))
}

/// Makes room and the header, converts everything, and returns how often it was told of a piece.
fn encrypt(disk: &Arc<Disk>, undo: &Arc<MemoryUndo>) -> Result<usize, RoomError> {
    let volume = options();
    let resilience = checksum(512);
    let area = area_size(&resilience, ZONE);
    let begin = BeginEncryption::new(&volume, resilience, area);
    let (text, interrupt) = (passphrase("old"), Interrupt::new());
    let mut pieces = 0;
    let mut advance = |_| {
        pieces += 1;
        true
    };
    let open = undo_options(undo);
    let begun = begin_with_room(disk, &**undo, &begin, open, &text, &interrupt, &mut advance);
    let (container, keys) = begun?;
    go_on(disk, container, &keys);
    Ok(pieces)
}

fn go_on(disk: &Arc<Disk>, container: Container, keys: &luksmith::container::ReencryptionKeys) {
    let mut resume = Resume::default();
    resume.zone = Some(1 << 20);
    let mut engine = Reencrypt::resume(container, disk.clone(), keys, resume).unwrap();
    while engine.step().unwrap() > 0 {}
    engine.finish().unwrap();
}

/// Takes up a state, as the next command does. Returns how the move was ended.
fn recover(disk: &Arc<Disk>, undo: &Arc<MemoryUndo>, what: &str) -> Option<RoomSettled> {
    if undo.record().is_some() {
        let opened = Container::open(disk.clone(), undo_options(undo));
        let refused = matches!(opened, Err(OpenError::Interrupted { .. }));
        assert!(refused, "{what}: {opened:?}");
    }
    let settled = settle_room(disk, &**undo).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(undo.record().is_none(), "{what}");
    match Container::open(disk.clone(), undo_options(undo)) {
        Ok(container) => {
            if container.reencryption().unwrap().is_some() {
                let keys = container.unlock_reencryption(&[passphrase("old")], &Interrupt::new());
                go_on(disk, container, &keys.unwrap());
            }
            check_encrypted(disk, undo, what);
        }
        Err(_) => assert!(disk.bytes() == plaintext(), "{what}: lost plaintext"),
    }
    settled
}

fn check_encrypted(disk: &Arc<Disk>, undo: &Arc<MemoryUndo>, what: &str) {
    let container = Container::open(disk.clone(), undo_options(undo)).unwrap();
    let unlocked = container.unlock(&passphrase("old"), Which::Any, &Interrupt::new());
    let volume = container.volume(disk.clone(), &unlocked.unwrap()).unwrap();
    assert_eq!(volume.size(), SIZE as u64, "{what}");
    let mut payload = vec![0; SIZE];
    volume.read_at(0, &mut payload).unwrap();
    assert!(payload == plaintext(), "{what}: lost data");
}

fn before() -> State {
    State {
        disk: plaintext(),
        undo: None,
        pin: None,
    }
}

#[test]
fn no_cut_of_a_move_loses_data() {
    let (disk, undo, log) = before().start();
    assert_eq!(encrypt(&disk, &undo).unwrap(), 3);
    check_encrypted(&disk, &undo, "without a cut");
    let events = log.lock().unwrap().clone();
    // Zones are the subject of another test.
    let cleared = events
        .iter()
        .position(|event| matches!(event, Event::ClearUndo));
    let events = &events[..=cleared.unwrap()];
    let moves = events
        .iter()
        .filter(|event| matches!(event, Event::Content(_)));
    assert_eq!(moves.count(), 1 + EXTENTS.len());
    let mut seen = Vec::new();
    let mut number = 0;
    let tear = |_: usize| 8192;
    let states = states::for_each_torn(&before(), events, tear, |state, what| {
        let (disk, undo, log) = state.start();
        let settled = recover(&disk, &undo, what);
        let new = !seen.contains(&settled);
        seen.push(settled);
        number += 1;
        // Recoveries that move content are cut too.
        if !new && number % 16 != 0 {
            return;
        }
        let again = log.lock().unwrap().clone();
        let end = again
            .iter()
            .position(|event| matches!(event, Event::ClearUndo));
        let again = &again[..end.map_or(0, |end| end + 1)];
        states::for_each_torn(state, again, tear, |state, then| {
            let (disk, undo, _) = state.start();
            recover(&disk, &undo, &format!("{what}, then {then}"));
        });
    });
    assert!(states > 30, "{states}");
    for settled in [
        RoomSettled::NotBegun,
        RoomSettled::Complete,
        RoomSettled::Reversed,
    ] {
        assert!(seen.contains(&Some(settled)), "{settled:?}");
    }
}

/// What does not agree with the record is refused, and nothing is written.
#[test]
fn a_move_of_changed_content_is_not_reversed() {
    let (disk, undo, log) = before().start();
    encrypt(&disk, &undo).unwrap();
    let events = log.lock().unwrap().clone();
    let record = events.iter().find_map(|event| match event {
        Event::SaveUndo(record) => Some(record.clone()),
        _ => None,
    });
    let record = record.unwrap();
    let room = usize::try_from(ROOM).unwrap();
    let moved = |at: usize| split(&plaintext(), at, room);
    let refused = |content: Vec<u8>, record: &[u8], expected: fn(&RoomError) -> bool| {
        let undo = Some(record.to_vec());
        let state = State {
            disk: content,
            undo,
            pin: None,
        };
        let (disk, undo, log) = state.start();
        assert!(is_room_record(&*undo).unwrap());
        let error = settle_room(&disk, &*undo).unwrap_err();
        assert!(expected(&error), "{error:?}");
        let events = log.lock().unwrap();
        assert!(events.is_empty(), "written");
        assert!(undo.record().is_some());
    };
    let changed: fn(&RoomError) -> bool = |error| matches!(error, RoomError::Changed { .. });
    let flip = |mut content: Vec<u8>, at: usize| {
        content[at] ^= 1;
        content
    };
    // Before the part that has moved, in it, and in the hole between them.
    for at in [8192, (1 << 20) + 4096] {
        for place in [4096, at + 4096, at + room + 5, SIZE + room - 1] {
            refused(flip(moved(at), place), &record, changed);
        }
    }
    refused(flip(plaintext(), SIZE - 1), &record, changed);
    // A header that is not this one does not keep a move that is not complete.
    let size: fn(&RoomError) -> bool = |error| matches!(error, RoomError::Size { .. });
    refused(plaintext()[..SIZE - 512].to_vec(), &record, size);
    let damaged: fn(&RoomError) -> bool = |error| matches!(error, RoomError::Damaged { .. });
    for length in [16, 47, 103, record.len() - 1] {
        refused(moved(8192), &record[..length], damaged);
    }
    refused(moved(8192), &flip(record.clone(), 60), damaged);
}

/// The move fails in its middle while the program runs: it is reversed at once.
#[test]
fn a_move_that_fails_is_reversed() {
    struct Fails(Arc<Disk>, usize);
    impl Backend for Fails {
        fn geometry(&self) -> luksmith::backend::Geometry {
            self.0.geometry()
        }
        fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
            self.0.read_at(offset, into)
        }
        fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
            self.0.write_at(offset, from)
        }
        fn flush(&self) -> Result<(), IoError> {
            self.0.flush()
        }
        fn discard(&self, _: Range<u64>) -> Result<(), IoError> {
            unreachable!("nothing is discarded")
        }
        fn write_zeroes(&self, _: Range<u64>) -> Result<(), IoError> {
            unreachable!("nothing is zeroed")
        }
        fn resize(&self, size: u64) -> Result<(), IoError> {
            self.0.resize(size)
        }
    }
    impl Room for Fails {
        fn can_insert(&self, _: u64) -> Result<(), IoError> {
            Ok(())
        }
        fn insert(&self, length: u64) -> Result<(), IoError> {
            let moved = split(&self.0.bytes(), self.1, usize::try_from(length).unwrap());
            self.0.replace(moved);
            Err(IoError::NoSpace {
                operation: luksmith::backend::Operation::Move,
                offset: 0,
            })
        }
        fn remove(&self, range: Range<u64>) -> Result<(), IoError> {
            self.0.remove(range)
        }
    }
    for at in [0, 8192, SIZE] {
        let (disk, undo, _) = before().start();
        let fails = Arc::new(Fails(disk.clone(), at));
        let volume = options();
        let begin = BeginEncryption::new(&volume, checksum(512), 4096);
        let (text, interrupt) = (passphrase("old"), Interrupt::new());
        let open = undo_options(&undo);
        let go = &mut |_| true;
        let begun = begin_with_room(&fails, &*undo, &begin, open, &text, &interrupt, go);
        let error = begun.unwrap_err();
        let full = matches!(error, RoomError::Io(IoError::NoSpace { .. }));
        assert!(full, "{error:?}");
        assert!(disk.bytes() == plaintext(), "{at}");
        assert!(undo.load().unwrap().is_none());
    }
}

/// An interrupt while the plaintext is hashed changes nothing.
#[test]
fn hashing_can_be_stopped() {
    let (disk, undo, log) = before().start();
    let volume = options();
    let begin = BeginEncryption::new(&volume, checksum(512), 4096);
    let (text, interrupt) = (passphrase("old"), Interrupt::new());
    let open = undo_options(&undo);
    let stop = &mut |_| false;
    let begun = begin_with_room(&disk, &*undo, &begin, open, &text, &interrupt, stop);
    assert!(matches!(begun, Err(RoomError::Stopped)));
    let events = log.lock().unwrap();
    assert!(events.iter().all(|event| matches!(event, Event::Flush)));
}
