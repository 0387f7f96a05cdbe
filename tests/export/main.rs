//! Does an export keep its rules, whatever protocol serves it? Here it is called directly, on
//! storage in memory whose flush can fail.

#![allow(missing_docs)]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use luksmith::backend::memory::MemoryBackend;
use luksmith::backend::{Backend, Geometry, IoError, Operation};
use luksmith::crypt::{IvSector, SectorCrypt};
use luksmith::export::{Discard, Export};
use luksmith::formats::CipherSpec;
use luksmith::secret::VolumeKey;
use luksmith::sectors::{Cipher, Plain, Sectors};
use luksmith::volume::{Volume, Windows};
use support::segments::Segments;

const SIZE: u64 = 64 << 10;

/// Memory whose next flush fails if told so. Like a kernel, it reports the failure once.
struct Storage {
    memory: MemoryBackend,
    flush_fails: AtomicBool,
    is_remote: bool,
    calls: AtomicUsize,
}

impl Backend for Storage {
    fn geometry(&self) -> Geometry {
        self.memory.geometry()
    }
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.memory.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.memory.write_at(offset, from)
    }
    fn flush(&self) -> Result<(), IoError> {
        if self.flush_fails.swap(false, Ordering::Relaxed) {
            let error = std::io::Error::other("broken");
            return Err(IoError::from_os(Operation::Flush, 0, error));
        }
        Ok(())
    }
    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.memory.discard(range)
    }
    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.memory.write_zeroes(range)
    }
    fn resize(&self, size: u64) -> Result<(), IoError> {
        self.memory.resize(size)
    }
    fn is_remote(&self) -> bool {
        self.is_remote
    }
}

fn storage() -> Arc<Storage> {
    Arc::new(Storage {
        memory: MemoryBackend::new(usize::try_from(SIZE).unwrap()),
        flush_fails: AtomicBool::new(false),
        is_remote: false,
        calls: AtomicUsize::new(0),
    })
}

fn volume(storage: &Arc<Storage>) -> Volume {
    let key = VolumeKey::copy_from(&[7; 64]).unwrap();
    let crypt = SectorCrypt::new(CipherSpec::AES_XTS_PLAIN64, 512, &key).unwrap();
    let size = storage.geometry().size;
    Volume::new(storage.clone(), crypt, 0, size, IvSector(0), false).unwrap()
}

fn export(storage: &Arc<Storage>) -> Export {
    Export::new("disk", Arc::new(volume(storage)))
}

fn bytes(text: &[u8]) -> Sectors<Plain> {
    let mut sectors = Sectors::<Plain>::with_len(text.len());
    sectors.as_mut_slice().copy_from_slice(text);
    sectors
}

#[test]
fn bytes_are_written_and_read_at_any_offset() {
    let export = export(&storage());
    for offset in [0, 1, 511, 4096, SIZE - 5] {
        export.write(offset, bytes(b"hello")).unwrap();
        assert_eq!(export.read(offset, 5).unwrap().as_slice(), b"hello");
    }
    let sector = [9; 512];
    export.write(1024, bytes(&sector)).unwrap();
    assert_eq!(export.read(1024, 512).unwrap().as_slice(), sector);
    export.write_zeroes(1025..1535).unwrap();
    let read = export.read(1024, 512).unwrap();
    assert_eq!(
        (read.as_slice()[0], read.as_slice()[1], read.as_slice()[511]),
        (9, 0, 9)
    );
    assert_eq!(format!("{read:?}"), "Bytes(512 bytes)");
}

/// A server's answer takes longer than the bytes of a short call.
#[test]
fn requests_to_remote_storage_are_a_call_for_each_mebibyte() {
    for (is_remote, calls) in [(false, 12), (true, 3)] {
        let storage = Arc::new(Storage {
            memory: MemoryBackend::new(4 << 20),
            flush_fails: AtomicBool::new(false),
            is_remote,
            calls: AtomicUsize::new(0),
        });
        let volume = volume(&storage);
        let (given, mut got) = (vec![0x5a; 3 << 20], vec![0; 3 << 20]);
        volume.write_at(0, &given).unwrap();
        assert_eq!(storage.calls.swap(0, Ordering::Relaxed), calls);
        volume.read_at(0, &mut got).unwrap();
        assert_eq!(storage.calls.load(Ordering::Relaxed), calls);
        assert!(got == given);
    }
}

#[test]
fn a_request_of_a_guest_is_in_pieces_of_its_memory() {
    let export = export(&storage());
    for (offset, len) in [(0, 4096), (512, 1024), (3, 700), (SIZE - 600, 600), (9, 0)] {
        let given: Vec<u8> = (0..len).map(|n: u16| (n / 3).to_le_bytes()[0]).collect();
        for pieces in [&[4096][..], &[512], &[100, 0, 1000], &[1]] {
            export.write_zeroes(0..SIZE).unwrap();
            let mut memory = Segments::of(&given, pieces);
            export
                .write_from(offset, Windows::new(&memory.windows()))
                .unwrap();
            assert!(memory.content() == given);
            assert!(export.read(offset, given.len()).unwrap().as_slice() == given);
            let mut memory = Segments::new(given.len(), pieces, 0xee);
            export
                .read_into(offset, Windows::new(&memory.windows()))
                .unwrap();
            assert!(memory.content() == given, "{offset} {pieces:?}");
        }
    }
}

#[test]
fn memory_that_its_owner_took_away_is_not_written() {
    let storage = storage();
    let export = export(&storage);
    export.write(0, bytes(&[1; 4096])).unwrap();
    let lost = AtomicBool::new(false);
    let mut memory = Segments::of(&[2; 1024], &[700]);
    let write = |offset, memory: &mut Segments| {
        let windows = memory.windows().into_iter();
        let windows: Vec<_> = windows.map(|window| window.until_lost(&lost)).collect();
        export.write_from(offset, Windows::new(&windows))
    };
    write(0, &mut memory).unwrap();
    lost.store(true, Ordering::Relaxed);
    // Whole units, partial ones, and both.
    for (offset, len) in [(0, 1024), (3, 100), (1000, 1024)] {
        let mut memory = Segments::of(&vec![3; len], &[700]);
        let outcome = write(offset, &mut memory);
        assert!(
            matches!(outcome, Err(IoError::SourceLost { .. })),
            "{outcome:?}"
        );
    }
    let stored = export.read(0, 4096).unwrap();
    assert!(stored.as_slice() == [&[2; 1024][..], &[1; 3072]].concat());
}

#[test]
fn requests_beyond_the_end_are_refused() {
    let export = export(&storage());
    let refused = |outcome: Result<(), IoError>| {
        assert!(
            matches!(outcome, Err(IoError::OutOfRange { .. })),
            "{outcome:?}"
        );
    };
    refused(export.read(SIZE - 1, 2).map(drop));
    refused(export.read(0, usize::MAX).map(drop));
    refused(export.read(u64::MAX, 1).map(drop));
    refused(export.write(SIZE - 1, bytes(b"ab")));
    refused(export.write(u64::MAX, bytes(b"ab")));
    let mut memory = Segments::of(b"ab", &[1]);
    let windows = memory.windows();
    for offset in [SIZE - 1, u64::MAX] {
        refused(export.read_into(offset, Windows::new(&windows)));
        refused(export.write_from(offset, Windows::new(&windows)));
    }
    drop(windows);
    assert_eq!(memory.content(), b"ab");
    refused(export.write_zeroes(0..SIZE + 1));
    refused(export.prefetch(0..SIZE + 1));
    refused(export.allocation(0..SIZE + 1).map(drop));
    refused(export.check(Operation::Write, u64::MAX, u64::MAX));
    refused(export.with_discard(Discard::Pass).discard(0..SIZE + 1));
}

#[test]
fn a_read_only_export_refuses_every_change() {
    let storage = storage();
    let export = export(&storage)
        .with_read_only(true)
        .with_read_only(false)
        .with_discard(Discard::Pass);
    assert!(export.is_read_only());
    let refused = |outcome: Result<(), IoError>| {
        assert!(matches!(outcome, Err(IoError::ReadOnly(_))), "{outcome:?}");
    };
    refused(export.write(0, bytes(b"a")));
    let mut memory = Segments::of(b"a", &[1]);
    refused(export.write_from(0, Windows::new(&memory.windows())));
    refused(export.write_zeroes(0..1));
    refused(export.discard(0..512));
    refused(export.check(Operation::Write, 0, 1));
    export.read(0, 1).unwrap();
    // There is nothing to flush, so the storage is not asked.
    storage.flush_fails.store(true, Ordering::Relaxed);
    export.flush().unwrap();
}

#[test]
fn a_discard_does_what_its_rule_says() {
    let storage = storage();
    let written = || {
        let export = export(&storage);
        export.write(0, bytes(&[9; 512])).unwrap();
        export
    };
    let stored = || {
        let mut sectors = Sectors::<Cipher>::with_len(512);
        storage.read_at(0, &mut sectors).unwrap();
        sectors.as_slice().to_vec()
    };
    let denied = written();
    let before = stored();
    assert!(matches!(
        denied.discard(0..512),
        Err(IoError::Unsupported(Operation::Discard))
    ));
    assert_eq!(stored(), before);

    let zeroes = written().with_discard(Discard::Zeroes);
    zeroes.discard(0..512).unwrap();
    assert_eq!(zeroes.read(0, 512).unwrap().as_slice(), [0; 512]);
    assert_ne!(stored(), [0; 512], "the zeroes are encrypted");

    written()
        .with_discard(Discard::Pass)
        .discard(0..512)
        .unwrap();
    assert_eq!(stored(), [0; 512]);
}

#[test]
fn after_a_failed_flush_every_later_one_fails() {
    let storage = storage();
    let export = export(&storage);
    export.flush().unwrap();
    storage.flush_fails.store(true, Ordering::Relaxed);
    export.flush().unwrap_err();
    let error = export.flush().unwrap_err();
    assert!(matches!(
        error,
        IoError::Failed {
            operation: Operation::Flush,
            ..
        }
    ));
    // Reads and writes go on.
    export.write(0, bytes(b"a")).unwrap();
    export.read(0, 1).unwrap();
}
