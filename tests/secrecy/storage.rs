//! Nothing secret reaches a storage: a backend that records every write sees no piece of plaintext,
//! of a passphrase or of a key.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::backend::{Backend, Geometry, IoError};
use luksmith::container::{
    Configure, Container, Kept, OpenOptions, RestoreOptions, Undo, UndoStore, Version, Which,
};
use luksmith::secret::{Passphrase, VolumeKey};
use luksmith::sectors::{Cipher, Sectors};

use crate::sample::{DATA, PBKDF2, copy, create, new_keyslot, options};
use crate::scan::fresh;
use support::secret_search::{PIECE, SecretSearch};

/// The offset and the bytes of a write.
type Write = (u64, Vec<u8>);

/// Every write, to a storage or to an undo record.
#[derive(Clone, Default)]
struct Record(Arc<Mutex<Vec<Write>>>);

impl Record {
    fn add(&self, offset: u64, bytes: &[u8]) {
        self.0.lock().unwrap().push((offset, bytes.to_vec()));
    }

    fn writes(&self) -> Vec<Write> {
        self.0.lock().unwrap().clone()
    }
}

struct Recording {
    storage: MemoryBackend,
    record: Record,
}

impl Backend for Recording {
    fn geometry(&self) -> Geometry {
        self.storage.geometry()
    }
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        self.storage.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        self.record.add(offset, from.as_slice());
        self.storage.write_at(offset, from)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.storage.flush()
    }
    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.storage.discard(range)
    }
    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.storage.write_zeroes(range)
    }
    fn resize(&self, size: u64) -> Result<(), IoError> {
        self.storage.resize(size)
    }
}

/// An undo store that adds its records to the same list.
struct MemoryUndo {
    record: Record,
    saved: Mutex<Option<Vec<u8>>>,
    times: Mutex<usize>,
}

impl UndoStore for MemoryUndo {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.saved.lock().unwrap().clone())
    }
    fn save(&self, record: &[u8]) -> io::Result<()> {
        self.record.add(0, record);
        *self.times.lock().unwrap() += 1;
        *self.saved.lock().unwrap() = Some(record.to_vec());
        Ok(())
    }
    fn clear(&self) -> io::Result<()> {
        *self.saved.lock().unwrap() = None;
        Ok(())
    }
    fn keep_copy(&self, _: Kept, _: &[u8]) -> io::Result<String> {
        unreachable!("no rollback is forced")
    }
    fn name(&self) -> String {
        "the undo record".into()
    }
}

/// Runs every operation that writes, on a volume full of the canary. The header and the data are on
/// one storage, or on two.
fn live(version: Version, cipher: &str, key_size: usize, detached: bool) {
    let (key, canary) = (fresh(key_size), fresh(512));
    let passphrases = [fresh(24), fresh(100), fresh(40)];
    let [first, second, third] =
        [0, 1, 2].map(|n: usize| Passphrase::from_locked(copy(&passphrases[n])));
    let record = Record::default();
    let storage = |size| -> Arc<Recording> {
        Arc::new(Recording {
            storage: MemoryBackend::new(size),
            record: record.clone(),
        })
    };
    let mut made = options(version, PBKDF2, cipher, &key);
    (made.detached, made.data_offset) = (detached, made.data_offset.filter(|_| !detached));
    // Two keyslots, so that a change has to overwrite in place when both are used. LUKS1 has eight.
    if version == Version::Luks2 {
        made.keyslots_size = Some(2 * (4000 * key_size as u64).next_multiple_of(4096));
    }
    let layout = made.layout().unwrap();
    let header = storage(usize::try_from(layout.header_size + DATA).unwrap());
    let data = if detached {
        storage(usize::try_from(DATA).unwrap())
    } else {
        header.clone()
    };
    let undo = Arc::new(MemoryUndo {
        record: record.clone(),
        saved: Mutex::new(None),
        times: Mutex::new(0),
    });
    let open = OpenOptions::new(Undo::Store(undo.clone()));
    let interrupt = Interrupt::new();
    let (mut container, unlocked) = create(header.clone(), made, open.clone(), &passphrases[0]);

    let volume = container.volume(data.clone(), &unlocked).unwrap();
    let fill = canary.repeat(usize::try_from(DATA / 512).unwrap());
    volume.write_at(0, &fill).unwrap();
    for offset in [1, 513, 70_000] {
        volume.write_at(offset, &canary[..300]).unwrap();
    }
    volume.discard(4096..16384).unwrap();
    volume.write_zeroes(20_000..40_000).unwrap();
    volume.flush().unwrap();
    let mut back = vec![1; 20_000];
    volume.read_at(20_000, &mut back).unwrap();
    assert!(back.iter().all(|&byte| byte == 0));

    let backup = container.backup().unwrap();
    record.add(0, &backup);
    let slots = if version == Version::Luks1 { 8 } else { 2 };
    for _ in 1..slots {
        container
            .add_keyslot(&unlocked, &new_keyslot(&second, PBKDF2), &interrupt)
            .unwrap();
    }
    let by_second = container
        .unlock(&second, Which::Slot(1), &interrupt)
        .unwrap();
    container
        .change_keyslot(&by_second, &new_keyslot(&third, PBKDF2), &interrupt)
        .unwrap();
    assert!(
        *undo.times.lock().unwrap() > 0,
        "nothing was overwritten in place"
    );
    container
        .unlock(&third, Which::Slot(1), &interrupt)
        .unwrap();
    container.remove_keyslot(1, false).unwrap();
    if version == Version::Luks2 {
        let own = VolumeKey::from_locked(copy(&key));
        container
            .add_unbound_keyslot(own, &new_keyslot(&third, PBKDF2), &interrupt)
            .unwrap();
        let label = Configure::new().label("label".to_owned());
        container.configure(&label).unwrap();
    }
    drop(container);
    let (mut container, _) =
        Container::restore(header.clone(), &backup, RestoreOptions::new(), open.clone()).unwrap();
    container.unlock(&first, Which::Any, &interrupt).unwrap();
    container.resize(&*data, 2 * DATA).unwrap();
    volume.set_size(2 * DATA).unwrap();
    volume.write_at(DATA, &fill).unwrap();
    Container::repair(header.clone(), open).unwrap();
    container.erase().unwrap();
    assert!(container.unlock(&first, Which::Any, &interrupt).is_err());

    let mut secrets = vec![("the plaintext", &canary[..]), ("the volume key", &key[..])];
    // A piece across the border of two repetitions is plaintext too.
    let border = [&canary[400..], &canary[..100]].concat();
    secrets.push(("the plaintext", &border));
    secrets.extend(
        passphrases
            .iter()
            .map(|secret| ("a passphrase", &secret[..])),
    );
    let search = SecretSearch::new(secrets);
    for (offset, bytes) in record.writes() {
        let found = search.found_in(&bytes);
        assert!(found.is_empty(), "{found:?} in the write at {offset}");
    }
    for bytes in [header.storage.to_bytes(), data.storage.to_bytes()] {
        assert!(search.found_in(&bytes).is_empty());
    }
    // The storage does not even see which parts are zero, since those were written as ciphertext.
    let start = layout.data_offset;
    let zeroed = (start + 20_480..start + 39_936).step_by(512);
    let bytes = data.storage.to_bytes();
    for at in zeroed.map(|at| usize::try_from(at).unwrap()) {
        assert_ne!(bytes[at..at + 512], [0; 512]);
    }
}

#[test]
fn luks1_writes_nothing_secret() {
    live(Version::Luks1, "aes-xts-plain64", 64, false);
}

#[test]
fn luks2_writes_nothing_secret() {
    live(Version::Luks2, "aes-xts-plain64", 64, false);
}

#[test]
fn other_ciphers_and_detached_headers_write_nothing_secret() {
    live(Version::Luks2, "aes-cbc-essiv:sha256", 32, false);
    live(Version::Luks2, "serpent-xts-plain64", 64, true);
    live(Version::Luks1, "aes-cbc-plain64", 16, true);
}

/// Positive control: a piece at any offset of a write is found.
#[test]
fn a_piece_in_a_write_is_found() {
    let canary = fresh(64);
    let search = SecretSearch::new(vec![("the plaintext", &canary[..])]);
    let mut written = fresh(4096).to_vec();
    assert!(search.found_in(&written).is_empty());
    written[4000..4000 + PIECE].copy_from_slice(&canary[30..30 + PIECE]);
    // The bytes on both sides are not those of the canary, or there would be more pieces.
    (written[3999], written[4000 + PIECE]) = (!canary[29], !canary[30 + PIECE]);
    assert_eq!(search.found_in(&written), ["the plaintext"]);
}
