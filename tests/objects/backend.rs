//! The backend keeps the contract of every storage.

use luksmith::backend::conformance::{self, Access, Clause, Opened};
use luksmith::backend::{Allocation, Backend, IoError, Operation};
use luksmith::objects::{ObjectsBackend, ObjectsError};
use luksmith::sectors::{Cipher, Sectors};

use crate::faults::{Faults, Objects, Random, index};
use crate::histories::{block, make, options, stamps};

#[test]
fn a_volume_keeps_the_contract() {
    for faults in [
        Faults::default(),
        Faults {
            refused: 20,
            dropped: 20,
            delayed: 5,
            hidden: 5,
            ..Faults::default()
        },
    ] {
        let objects = Objects::default();
        // Not in whole blocks.
        make(&objects, (2 << 20) + 777);
        let report = conformance::check(|access| -> Opened<'_> {
            let handle = objects.with_faults(3, faults);
            let options = options().write(access == Access::ReadWrite);
            let options = options
                .checkpoint_objects(64)
                .map_memory(1 << 10)
                .connections(4);
            Ok(Box::new(ObjectsBackend::open(handle, None, options)?))
        });
        let report = report.unwrap_or_else(|violation| panic!("{violation:?}"));
        let skipped: Vec<_> = report.skipped().iter().map(|(clause, _)| *clause).collect();
        assert_eq!(skipped, [Clause::WholeBlocks, Clause::Reserve]);
    }
}

#[test]
fn a_volume_is_as_long_as_its_last_size_and_grows_with_zeroes() {
    let objects = Objects::default();
    make(&objects, 5 * 4096);
    let volume = ObjectsBackend::open(objects.handle(), None, options()).unwrap();
    for at in 0..5 {
        volume.write_at(at * 4096, &block(at + 1)).unwrap();
    }
    volume.resize(2 * 4096 + 100).unwrap();
    volume.resize(8 * 4096).unwrap();
    drop(volume);
    let volume = ObjectsBackend::open(objects.handle(), None, options()).unwrap();
    assert_eq!(volume.geometry().size, 8 * 4096);
    let mut bytes = Sectors::<Cipher>::with_len(8 * 4096);
    volume.read_at(0, &mut bytes).unwrap();
    let third = &bytes.as_slice()[2 * 4096..];
    assert!(third[..100] == block(3).as_slice()[..100]);
    assert!(third[100..].iter().all(|byte| *byte == 0));
    let extents = volume.extents(0..8 * 4096).unwrap();
    assert_eq!(
        extents,
        [(3 * 4096, Allocation::Data), (5 * 4096, Allocation::Hole)]
    );
}

#[test]
fn garbage_is_collected_and_what_is_stored_stays_small() {
    let objects = Objects::default();
    make(&objects, 1 << 20);
    let volume = ObjectsBackend::open(objects.handle(), None, options()).unwrap();
    let mut random = Random::new(5);
    let mut expected = vec![0; 256];
    for stamp in 1..6000 {
        let at = random.below(256);
        expected[index(at)] = stamp;
        volume.write_at(at * 4096, &block(stamp)).unwrap();
    }
    volume.flush().unwrap();
    volume.collect().unwrap();
    assert_eq!(stamps(&volume).unwrap(), expected);
    let status = volume.status();
    assert_eq!(status.live, 1 << 20);
    assert!(status.stored * 7 <= status.live * 10, "{status:?}");
    assert!(objects.size() < 2 << 20, "{} bytes", objects.size());
    volume.close().unwrap();
    let volume = ObjectsBackend::open(objects.handle(), None, options().write(false)).unwrap();
    assert_eq!(stamps(&volume).unwrap(), expected);
    let verified = volume.verify().unwrap();
    assert!(
        verified.segments >= 64 && verified.leaves == 1,
        "{verified:?}"
    );
}

#[test]
fn a_damaged_or_missing_object_is_found() {
    let objects = Objects::default();
    make(&objects, 1 << 20);
    let volume = ObjectsBackend::open(objects.handle(), None, options()).unwrap();
    for at in 0..20 {
        volume.write_at(at * 4096, &block(at + 1)).unwrap();
    }
    volume.close().unwrap();
    let verify = |objects: &Objects| {
        let options = options().write(false);
        ObjectsBackend::open(objects.handle(), None, options)?.verify()
    };
    verify(&objects).unwrap();
    let segment = "e/00000001/0000000000000002";
    for at in [20, 200, 4000] {
        objects.damage(segment, at);
        let error = verify(&objects).unwrap_err();
        assert!(
            matches!(&error, ObjectsError::Damaged { name, .. } | ObjectsError::Format { name, .. } if name == segment),
            "{error:?}"
        );
        objects.damage(segment, at);
    }
    verify(&objects).unwrap();
    objects.remove(segment);
    // The store is asked again for a while, since it may say so wrongly.
    let options = options()
        .write(false)
        .timeout(std::time::Duration::from_millis(20));
    let volume = ObjectsBackend::open(objects.handle(), None, options).unwrap();
    assert!(matches!(volume.verify(), Err(ObjectsError::Damaged { name, .. }) if name == segment));
    let mut bytes = Sectors::<Cipher>::with_len(1 << 20);
    let read = volume.read_at(0, &mut bytes);
    assert!(matches!(
        read,
        Err(IoError::Failed {
            operation: Operation::Read,
            ..
        })
    ));
}

#[test]
fn a_read_of_a_block_is_one_request() {
    let objects = Objects::default();
    make(&objects, 64 << 20);
    let volume = ObjectsBackend::open(objects.handle(), None, options()).unwrap();
    for at in 0..64 {
        volume.write_at(at * 4096, &block(at + 1)).unwrap();
    }
    volume.close().unwrap();
    let handle = objects.handle();
    let volume = ObjectsBackend::open(handle.clone(), None, options().write(false)).unwrap();
    let mut bytes = Sectors::<Cipher>::with_len(4096);
    let mut reads = |at: u64| {
        let before = handle.count("read");
        volume.read_at(at, &mut bytes).unwrap();
        handle.count("read") - before
    };
    // The leaf of the map and the data, the data, and a hole.
    assert_eq!([reads(0), reads(17 * 4096), reads(1 << 20)], [2, 1, 0]);
}

/// A leaf has 32 MiB of the volume.
#[test]
fn leaves_are_read_together_where_the_volume_is_read_in_order() {
    const LEAF: u64 = 32 << 20;
    let objects = Objects::default();
    make(&objects, 8 * LEAF);
    let volume = ObjectsBackend::open(objects.handle(), None, options()).unwrap();
    for leaf in 0..8 {
        volume.write_at(leaf * LEAF, &block(leaf + 1)).unwrap();
    }
    volume.close().unwrap();
    let handle = objects.handle();
    let reads = |order: [u64; 8]| {
        let options = options().write(false);
        let volume = ObjectsBackend::open(handle.clone(), None, options).unwrap();
        let mut bytes = Sectors::<Cipher>::with_len(4096);
        order.map(|leaf| {
            let before = handle.count("read");
            volume.read_at(leaf * LEAF, &mut bytes).unwrap();
            assert_eq!(bytes.as_slice(), block(leaf + 1).as_slice());
            handle.count("read") - before
        })
    };
    // The leaf and the data; the second time with all leaves that follow.
    assert_eq!(reads([0, 1, 2, 3, 4, 5, 6, 7]), [2, 2, 1, 1, 1, 1, 1, 1]);
    assert_eq!(reads([7, 5, 3, 1, 6, 4, 2, 0]), [2; 8]);
}

/// The memory of the map is full of leaves that have changed, and the leaf before is one of them.
#[test]
fn leaves_are_read_together_while_none_has_room() {
    const LEAF: u64 = 32 << 20;
    let objects = Objects::default();
    make(&objects, 4 * LEAF);
    let volume = ObjectsBackend::open(objects.handle(), None, options()).unwrap();
    for leaf in 0..4 {
        volume.write_at(leaf * LEAF, &block(leaf + 1)).unwrap();
    }
    volume.close().unwrap();
    let handle = objects.handle();
    let volume = ObjectsBackend::open(handle.clone(), None, options().map_memory(1)).unwrap();
    volume.write_at(0, &block(9)).unwrap();
    let before = handle.count("read");
    let mut bytes = Sectors::<Cipher>::with_len(4096);
    volume.read_at(LEAF, &mut bytes).unwrap();
    assert_eq!(bytes.as_slice(), block(2).as_slice());
    assert_eq!(handle.count("read") - before, 2);
    volume.close().unwrap();
}

#[test]
fn what_is_in_the_cache_is_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::default();
    make(&objects, 64 * 4096);
    let volume = ObjectsBackend::open(objects.handle(), None, options()).unwrap();
    for at in 0..64 {
        volume.write_at(at * 4096, &block(at + 1)).unwrap();
    }
    volume.close().unwrap();
    let handle = objects.handle();
    let options = options()
        .write(false)
        .cache(Some(folder.path().join("cache")));
    let volume = ObjectsBackend::open(handle.clone(), None, options).unwrap();
    let expected: Vec<u64> = (1..=64).collect();
    assert_eq!(stamps(&volume).unwrap(), expected);
    let before = handle.count("read");
    for _ in 0..3 {
        assert_eq!(stamps(&volume).unwrap(), expected);
    }
    assert_eq!(handle.count("read"), before);
}
