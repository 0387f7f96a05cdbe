//! Volumes whose flushes are done when a local file has the data.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use luksmith::backend::Backend;
use luksmith::objects::{JournalError, ObjectsBackend, ObjectsError};

use crate::faults::{Objects, index};
use crate::histories::{Local, block, make, options, stamps};

const SIZE: u64 = 16 * 4096;

#[test]
fn a_flush_waits_for_the_file_only_and_what_it_has_is_not_lost() {
    let (objects, local) = (Objects::default(), Local::new());
    local.make(&objects, SIZE);
    let with = || options().journal(local.path());
    let handle = objects.handle();
    let volume = ObjectsBackend::open(handle.clone(), None, with()).unwrap();
    let before = handle.count("create");
    for stamp in 1..=100 {
        volume.write_at(stamp % 3 * 4096, &block(stamp)).unwrap();
        volume.flush().unwrap();
    }
    volume.discard(5 * 4096..6 * 4096).unwrap();
    volume.resize(SIZE + 4096).unwrap();
    volume.flush().unwrap();
    assert!(handle.count("create") < before + 5);
    // The process is killed.
    volume.abandon();
    drop(volume);
    let seen =
        stamps(&ObjectsBackend::open(objects.handle(), None, options().write(false)).unwrap());
    assert!(seen.unwrap().len() <= 17);
    // The next one does not end in order either.
    for _ in 0..2 {
        let volume = ObjectsBackend::open(objects.handle(), None, with()).unwrap();
        assert_eq!(stamps(&volume).unwrap()[..4], [99, 100, 98, 0]);
        assert_eq!(volume.geometry().size, SIZE + 4096);
        volume.abandon();
    }
    let volume = ObjectsBackend::open(objects.handle(), None, with()).unwrap();
    volume.write_at(0, &block(7)).unwrap();
    volume.close().unwrap();
    // After an orderly end the file is not needed.
    std::fs::remove_file(local.path().unwrap()).unwrap();
    let volume = ObjectsBackend::open(objects.handle(), None, with()).unwrap();
    assert_eq!(stamps(&volume).unwrap()[..3], [7, 100, 98]);
    volume.verify().unwrap();
}

#[test]
fn a_writer_without_the_journal_is_refused_unless_it_may_be_lost() {
    let (objects, local) = (Objects::default(), Local::new());
    local.make(&objects, SIZE);
    let none = ObjectsBackend::open(objects.handle(), None, options());
    assert!(matches!(
        none,
        Err(ObjectsError::JournalMode { wanted: true })
    ));
    let with = || options().journal(local.path());
    let volume =
        ObjectsBackend::open(objects.handle(), None, with().host("one".to_owned())).unwrap();
    // The same file by two writers.
    let twice = ObjectsBackend::open(objects.handle(), None, with());
    assert!(matches!(
        twice,
        Err(ObjectsError::Journal(JournalError::File { .. }))
    ));
    volume.write_at(0, &block(1)).unwrap();
    volume.flush().unwrap();
    let elsewhere = Local::new();
    let other = || options().journal(elsewhere.path());
    let refused = ObjectsBackend::open(objects.handle(), None, other());
    assert!(matches!(refused, Err(ObjectsError::JournalLost { host }) if host == "one"));
    let forced = ObjectsBackend::open(objects.handle(), None, other().journal_lost(true)).unwrap();
    forced.write_at(4096, &block(2)).unwrap();
    forced.flush().unwrap();
    // What the first one sends to the store does not count any more, and its journal neither.
    volume.close().unwrap_err();
    forced.close().unwrap();
    let opened = ObjectsBackend::open(objects.handle(), None, with()).unwrap();
    assert_eq!(stamps(&opened).unwrap()[1], 2);
    opened.abandon();
    drop(opened);
    let stale = ObjectsBackend::open(objects.handle(), None, other());
    assert!(matches!(stale, Err(ObjectsError::JournalLost { .. })));

    let others = Objects::default();
    make(&others, SIZE);
    let unwanted = ObjectsBackend::open(others.handle(), None, with());
    assert!(matches!(
        unwanted,
        Err(ObjectsError::JournalMode { wanted: false })
    ));
    std::fs::write(local.path().unwrap(), "a file of a user").unwrap();
    let foreign = ObjectsBackend::open(objects.handle(), None, with());
    assert!(matches!(
        foreign,
        Err(ObjectsError::Journal(JournalError::Other { .. }))
    ));
}

/// What is replayed fills the journal's limit many times, and the store has the first of it long
/// before the last is read.
#[test]
fn a_journal_is_not_cut_while_it_is_replayed() {
    let (objects, local) = (Objects::default(), Local::new());
    local.make(&objects, 1024 * 4096);
    let with = || options().journal(local.path());
    let volume = ObjectsBackend::open(objects.handle(), None, with()).unwrap();
    for at in 0..1024 {
        volume.write_at(at * 4096, &block(at + 1)).unwrap();
    }
    volume.flush().unwrap();
    volume.abandon();
    drop(volume);
    let small = with().journal_size(20_000);
    let volume = ObjectsBackend::open(objects.handle(), None, small.clone()).unwrap();
    assert!(stamps(&volume).unwrap().into_iter().eq(1..=1024));
    volume.close().unwrap();
    // Of several writers each one waits, and the file stays small.
    let volume = ObjectsBackend::open(objects.handle(), None, small).unwrap();
    std::thread::scope(|scope| {
        for first in 0..4 {
            let volume = &volume;
            scope.spawn(move || {
                for at in (first..1024).step_by(4) {
                    volume.write_at(at * 4096, &block(at + 2000)).unwrap();
                }
            });
        }
    });
    volume.discard(0..512 * 4096).unwrap();
    let length = local.path().unwrap().metadata().unwrap().len();
    assert!(length < 100_000, "{length}");
    volume.close().unwrap();
}

/// A volume whose writer was killed after three writes, of which two were flushed, and how long its
/// journal was after each.
fn killed() -> (Objects, Local, [usize; 3]) {
    let (objects, local) = (Objects::default(), Local::new());
    local.make(&objects, SIZE);
    let with = options().journal(local.path());
    let volume = ObjectsBackend::open(objects.handle(), None, with).unwrap();
    let lengths = [1, 2, 3].map(|stamp| {
        volume.write_at(stamp * 4096, &block(stamp)).unwrap();
        if stamp < 3 {
            volume.flush().unwrap();
        }
        index(local.path().unwrap().metadata().unwrap().len())
    });
    volume.abandon();
    (objects, local, lengths)
}

/// What is in the volume with the bit of a byte of its journal changed.
fn with_damage(
    (objects, local, _): &(Objects, Local, [usize; 3]),
    at: usize,
    journal_lost: bool,
) -> Result<Vec<u64>, ObjectsError> {
    let path = local.path().unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let options = options().journal(local.path()).journal_lost(journal_lost);
    let opened = ObjectsBackend::open(objects.handle(), None, options);
    let volume = opened.inspect_err(|_| std::fs::write(&path, whole).unwrap())?;
    let stamps = stamps(&volume).unwrap();
    volume.close()?;
    Ok(stamps[1..4].to_vec())
}

#[test]
fn a_damaged_journal_is_refused_and_a_torn_one_is_not() {
    let damaged = killed();
    let (.., [first, second, third]) = damaged;
    // In what was flushed, and was followed by more: in its data, its checksum, and its length.
    for at in [first - 1, first + 8, second - 4096] {
        let refused = with_damage(&damaged, at, false);
        let Err(ObjectsError::Journal(JournalError::Damaged { at: place, .. })) = refused else {
            panic!("the damage at {at} is not found: {refused:?}");
        };
        assert!(place <= at as u64);
    }
    // What is before the damage can be used.
    assert_eq!(with_damage(&damaged, second - 1, true).unwrap(), [1, 0, 0]);

    // In what was not flushed: the system may have written what follows, and not this.
    assert_eq!(with_damage(&killed(), third - 1, false).unwrap(), [1, 2, 0]);
}

#[test]
fn a_journal_that_others_can_change_or_that_was_removed_is_not_believed() {
    let (objects, local) = (Objects::default(), Local::new());
    local.make(&objects, SIZE);
    let path = local.path().unwrap();
    let with = || options().journal(local.path());
    let open = || ObjectsBackend::open(objects.handle(), None, with());
    open().unwrap().close().unwrap();
    let refused = |why: &str| {
        let Err(ObjectsError::Journal(JournalError::File { source, .. })) = open() else {
            panic!("it is believed: {why}");
        };
        assert!(source.to_string().contains(why), "{source}");
    };
    let mode = |mode| std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    mode(0o666);
    refused("other users can write");
    mode(0o600);
    let other = path.with_extension("other");
    std::fs::hard_link(&path, &other).unwrap();
    refused("several names");
    std::fs::remove_file(other).unwrap();

    let volume = open().unwrap();
    volume.write_at(0, &block(1)).unwrap();
    volume.flush().unwrap();
    std::fs::remove_file(&path).unwrap();
    volume.write_at(4096, &block(2)).unwrap();
    volume.flush().unwrap_err();
    volume.flush().unwrap_err();
}

#[test]
fn a_volume_that_is_given_up_leaves_its_journal_empty() {
    let (objects, local) = (Objects::default(), Local::new());
    let with = || options().journal(local.path());
    for _ in 0..2 {
        local.make(&objects, SIZE);
        let volume = ObjectsBackend::open(objects.handle(), None, with()).unwrap();
        let own = volume.claim();
        volume.abandon();
        drop(volume);
        ObjectsBackend::remove(objects.handle(), [7; 16], own, &with()).unwrap();
        assert_eq!(objects.names(), Vec::<String>::new());
        assert_eq!(local.path().unwrap().metadata().unwrap().len(), 0);
    }
}

#[test]
fn a_volume_with_a_journal_keeps_the_contract() {
    use luksmith::backend::conformance::{self, Access, Opened};
    let (objects, local) = (Objects::default(), Local::new());
    local.make(&objects, 2 << 20);
    let report = conformance::check(|access| -> Opened<'_> {
        let options = options()
            .journal(local.path())
            .write(access == Access::ReadWrite);
        Ok(Box::new(ObjectsBackend::open(
            objects.handle(),
            None,
            options,
        )?))
    });
    report.unwrap_or_else(|violation| panic!("{violation:?}"));
}
