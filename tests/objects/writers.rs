//! Several writers: one at a time has the volume.

use luksmith::backend::{Backend, IoError, Operation};
use luksmith::objects::{Creation, ObjectsBackend, ObjectsError, Store, StoreError};
use luksmith_formats::objects::volume::Volume;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::faults::{Objects, index};
use crate::histories::{block, make, options, stamps};

#[test]
fn a_writer_that_was_stopped_is_fenced_by_the_next_one() {
    let objects = Objects::default();
    make(&objects, 8 * 4096);
    let open = || ObjectsBackend::open(objects.handle(), None, options());
    let first = open().unwrap();
    first.write_at(0, &block(1)).unwrap();
    first.flush().unwrap();
    first.write_at(4096, &block(2)).unwrap();
    // It stands still, and another one works and collects garbage.
    let second = open().unwrap();
    assert_eq!(stamps(&second).unwrap()[..2], [1, 0]);
    for stamp in 10..40 {
        second.write_at(2 * 4096, &block(stamp)).unwrap();
        second.flush().unwrap();
    }
    second.checkpoint().unwrap();
    second.collect().unwrap();
    second.sweep().unwrap();
    // It goes on.
    let lost = |result| matches!(result, Err(IoError::LockLost(_)));
    assert!(lost(first.flush()));
    assert!(lost(first.write_at(0, &block(9))));
    assert!(matches!(first.checkpoint(), Err(ObjectsError::Fenced)));
    assert!(matches!(first.close(), Err(ObjectsError::Fenced)));
    second.flush().unwrap();
    second.close().unwrap();
    let third = open().unwrap();
    assert_eq!(stamps(&third).unwrap()[..3], [1, 0, 39]);
    third.verify().unwrap();
}

/// The search for garbage of a writer that does not know yet that it is fenced.
#[test]
fn a_fenced_writer_deletes_nothing_that_the_next_one_needs() {
    let objects = Objects::default();
    make(&objects, 8 * 4096);
    let open = || ObjectsBackend::open(objects.handle(), None, options());
    let first = open().unwrap();
    first.write_at(0, &block(1)).unwrap();
    first.flush().unwrap();
    first.checkpoint().unwrap();
    let second = open().unwrap();
    second.write_at(4096, &block(2)).unwrap();
    second.checkpoint().unwrap();
    let before = objects.names();
    first.sweep().unwrap();
    assert_eq!(objects.names(), before);
    second.close().unwrap();
    let third = open().unwrap();
    assert_eq!(stamps(&third).unwrap()[..2], [1, 2]);
    third.verify().unwrap();
}

#[test]
fn only_the_writer_that_was_seen_is_taken_over() {
    let objects = Objects::default();
    make(&objects, 8 * 4096);
    let open = |options| ObjectsBackend::open(objects.handle(), None, options);
    let _first = open(options()).unwrap();
    let reader = open(options().write(false)).unwrap();
    let seen = reader.writer().unwrap().unwrap().epoch;
    let second = open(options().of_writer(Some(seen))).unwrap();
    second.write_at(0, &block(1)).unwrap();
    let late = open(options().of_writer(Some(seen)));
    assert!(matches!(late, Err(ObjectsError::Busy { .. })));
    second.flush().unwrap();
}

#[test]
fn a_volume_is_not_removed_that_another_writer_has_or_made() {
    let objects = Objects::default();
    make(&objects, 8 * 4096);
    let first = ObjectsBackend::open(objects.handle(), None, options()).unwrap();
    let own = first.claim();
    let second = ObjectsBackend::open(objects.handle(), None, options()).unwrap();
    second.write_at(0, &block(1)).unwrap();
    second.flush().unwrap();
    let remove = |uuid, own| ObjectsBackend::remove(objects.handle(), uuid, own, &options());
    let before = objects.names();
    for own in [own, None] {
        assert!(matches!(
            remove([7; 16], own),
            Err(ObjectsError::Busy { .. })
        ));
    }
    let own = second.claim();
    assert!(matches!(remove([8; 16], own), Err(ObjectsError::Exists)));
    assert_eq!(objects.names(), before);
    // A volume whose prefix begins with that of this one stays.
    let below = Store::create(&*objects.handle(), "other/volume", &[b"x"]);
    assert!(matches!(below, Ok(Creation::Created)));
    second.abandon();
    remove([7; 16], own).unwrap();
    assert_eq!(objects.names(), ["other/volume"]);
}

#[test]
fn a_volume_that_is_open_elsewhere_is_refused_unless_it_is_taken_over() {
    let objects = Objects::default();
    make(&objects, 8 * 4096);
    let careful = || options().take_over(false).host("one".to_owned());
    let open = || ObjectsBackend::open(objects.handle(), None, careful());
    let first = open().unwrap();
    first.write_at(0, &block(1)).unwrap();
    first.flush().unwrap();
    let Err(ObjectsError::Busy { host, time }) = open() else {
        panic!("a second writer");
    };
    assert!(host == "one" && time > 0);
    // Readers take nothing from it.
    let reader = ObjectsBackend::open(objects.handle(), None, options().write(false)).unwrap();
    assert_eq!(stamps(&reader).unwrap()[0], 1);
    assert!(matches!(
        reader.write_at(0, &block(1)),
        Err(IoError::ReadOnly(Operation::Write))
    ));
    assert!(matches!(reader.collect(), Err(ObjectsError::ReadOnly)));
    first.write_at(0, &block(2)).unwrap();
    first.close().unwrap();
    assert_eq!(stamps(&open().unwrap()).unwrap()[0], 2);
}

#[test]
fn of_two_writers_that_take_over_at_once_one_wins_and_nothing_is_lost() {
    for round in 0..20 {
        let objects = Objects::default();
        make(&objects, 8 * 4096);
        let won: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..=4)
                .map(|stamp| {
                    let objects = &objects;
                    scope.spawn(move || {
                        let volume =
                            ObjectsBackend::open(objects.handle(), None, options()).ok()?;
                        volume.write_at(stamp * 4096, &block(stamp)).ok()?;
                        volume.flush().ok().map(|()| stamp)
                    })
                })
                .collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(!won.is_empty(), "round {round}");
        let volume = ObjectsBackend::open(objects.handle(), None, options()).unwrap();
        let found = stamps(&volume).unwrap();
        for stamp in won {
            assert_eq!(found[index(stamp)], stamp, "round {round}");
        }
        volume.verify().unwrap();
    }
}

#[test]
fn a_snapshot_stays_as_it_is_and_a_volume_goes_back_to_it() {
    let objects = Objects::default();
    make(&objects, 8 * 4096);
    let volume = ObjectsBackend::open(objects.handle(), None, options()).unwrap();
    let fill = |stamp: u64| {
        for at in 0..8 {
            volume.write_at(at * 4096, &block(stamp + at)).unwrap();
        }
    };
    fill(10);
    volume.make_snapshot("monday").unwrap();
    fill(20);
    volume.resize(9 * 4096).unwrap();
    volume.make_snapshot("tuesday").unwrap();
    assert!(matches!(
        volume.make_snapshot("monday"),
        Err(ObjectsError::SnapshotExists)
    ));
    assert!(matches!(
        volume.make_snapshot("a/b"),
        Err(ObjectsError::SnapshotName)
    ));
    for stamp in 30..60 {
        fill(stamp);
        volume.flush().unwrap();
    }
    volume.collect().unwrap();
    volume.sweep().unwrap();
    let read = |name: &str| {
        let options = options().write(false);
        ObjectsBackend::open(objects.handle(), Some(name), options).map(|it| stamps(&it).unwrap())
    };
    let monday: Vec<u64> = (10..18).collect();
    assert_eq!(read("monday").unwrap(), monday);
    assert_eq!(
        read("tuesday").unwrap(),
        [20, 21, 22, 23, 24, 25, 26, 27, 0]
    );
    assert!(matches!(read("sunday"), Err(ObjectsError::NoSnapshot)));
    volume.roll_back("monday").unwrap();
    assert_eq!(stamps(&volume).unwrap(), monday);
    volume.write_at(0, &block(99)).unwrap();
    volume.delete_snapshot("tuesday").unwrap();
    assert!(matches!(
        volume.delete_snapshot("tuesday"),
        Err(ObjectsError::NoSnapshot)
    ));
    volume.collect().unwrap();
    volume.verify().unwrap();
    volume.close().unwrap();
    assert_eq!(read("monday").unwrap(), monday);
    let volume = ObjectsBackend::open(objects.handle(), None, options()).unwrap();
    let now = stamps(&volume).unwrap();
    assert_eq!((now[0], &now[1..]), (99, &monday[1..]));
    let names: Vec<_> = volume
        .status()
        .snapshots
        .into_iter()
        .map(|it| it.name)
        .collect();
    assert_eq!(names, ["monday"]);
    // The present contents, those of the snapshot, and little else.
    volume.delete_snapshot("monday").unwrap();
    volume.collect().unwrap();
    assert!(volume.status().stored <= 12 * 4096, "{:?}", volume.status());
}

/// A store that overwrites.
struct Overwriting(Arc<dyn Store>);

impl Store for Overwriting {
    fn create(&self, name: &str, parts: &[&[u8]]) -> Result<Creation, StoreError> {
        self.0.remove(name)?;
        self.0.create(name, parts)
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.read(name, range)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.0.remove(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        self.0.list(prefix)
    }
}

#[test]
fn a_store_that_overwrites_is_refused() {
    let objects = Objects::default();
    let overwriting = Arc::new(Overwriting(objects.handle()));
    let made = ObjectsBackend::create(overwriting.clone(), &Volume::new([1; 16], 4096), &options());
    assert!(matches!(made, Err(ObjectsError::Overwrites)));
    let objects = Objects::default();
    make(&objects, 4096);
    let overwriting = Arc::new(Overwriting(objects.handle()));
    let opened = ObjectsBackend::open(overwriting, None, options());
    assert!(matches!(opened, Err(ObjectsError::Overwrites)));
    assert_eq!(objects.names(), ["volume"]);
}

#[test]
fn a_volume_that_is_there_is_not_made_again_and_one_that_is_not_is_not_opened() {
    let objects = Objects::default();
    let opened = ObjectsBackend::open(objects.handle(), None, options());
    assert!(matches!(opened, Err(ObjectsError::Absent)));
    make(&objects, 4096);
    let again = ObjectsBackend::create(objects.handle(), &Volume::new([1; 16], 4096), &options());
    assert!(matches!(again, Err(ObjectsError::Exists)));
    assert_eq!(objects.names(), ["volume"]);
}

/// A store in which something happens before the first read of a whole segment.
struct Before {
    store: Arc<dyn Store>,
    what: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Store for Before {
    fn create(&self, name: &str, parts: &[&[u8]]) -> Result<Creation, StoreError> {
        self.store.create(name, parts)
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Option<Vec<u8>>, StoreError> {
        let is_whole_segment = name.starts_with("e/") && range == (0..u64::MAX);
        if is_whole_segment && let Some(what) = self.what.lock().unwrap().take() {
            what();
        }
        self.store.read(name, range)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.store.remove(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        self.store.list(prefix)
    }
}

/// The blocks of segments that a collection has chosen are overwritten before it reads them, and
/// another thread's checkpoint deletes the segments.
#[test]
fn a_collection_does_without_segments_that_were_deleted_meanwhile() {
    let objects = Objects::default();
    make(&objects, 64 * 4096);
    let store = Arc::new(Before {
        store: objects.handle(),
        what: Mutex::default(),
    });
    let volume = Arc::new(ObjectsBackend::open(store.clone(), None, options()).unwrap());
    let write = |volume: &ObjectsBackend, stamp, step| {
        for at in (0..64).step_by(step) {
            volume.write_at(at * 4096, &block(stamp)).unwrap();
        }
        volume.flush().unwrap();
    };
    write(&volume, 1, 1);
    write(&volume, 2, 2);
    let other = volume.clone();
    let deleted = Arc::new(AtomicBool::new(false));
    let seen = deleted.clone();
    *store.what.lock().unwrap() = Some(Box::new(move || {
        write(&other, 3, 1);
        other.checkpoint().unwrap();
        seen.store(true, Ordering::SeqCst);
    }));
    volume.collect().unwrap();
    assert!(deleted.load(Ordering::SeqCst));
    assert_eq!(stamps(&*volume).unwrap(), [3; 64]);
    volume.verify().unwrap();
}
