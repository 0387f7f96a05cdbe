//! A storage with tags keeps the contract of a storage, serves several threads, and is refused
//! where it cannot be the one that was left.

use std::thread;

use luksmith::backend::Backend;
use luksmith::backend::conformance::{self, Opened};
use luksmith::trust::tags::TagsError;

use crate::tags_world::{BLOCK, Random, World, short_logs};

#[test]
fn it_keeps_the_contract_of_a_storage() {
    let world = World::new(512);
    let (_, tagged) = world.open(short_logs()).unwrap();
    let open = |_| -> Opened<'static> { Ok(Box::new(tagged.clone())) };
    let checked = conformance::check(open);
    checked.unwrap_or_else(|violation| panic!("{violation:?}"));
}

#[test]
fn several_threads_write_at_the_same_time() {
    const THREADS: usize = 6;
    const BLOCKS: usize = 64;
    let world = World::new(BLOCKS);
    let (volume, tagged) = world.open(short_logs().background(true)).unwrap();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let volume = &volume;
            scope.spawn(move || {
                let mut random = Random(number as u64);
                // Each thread has a sector of every block.
                for round in 0..250 {
                    let block = random.index(BLOCKS);
                    let at = (block * BLOCK + number * 512) as u64;
                    let bytes = [u8::try_from(round % 251).unwrap() + 1; 512];
                    volume.write_at(at, &bytes).unwrap();
                    let mut found = [0; 512];
                    volume.read_at(at, &mut found).unwrap();
                    assert_eq!(found, bytes);
                    match round % 16 {
                        0 => volume.flush().unwrap(),
                        // A sector that no thread writes.
                        1 => volume
                            .read_at((block * BLOCK + 4095) as u64, &mut found[..1])
                            .unwrap(),
                        _ => {}
                    }
                }
            });
        }
    });
    let mut before = vec![0; world.size()];
    volume.read_at(0, &mut before).unwrap();
    volume.flush().unwrap();
    assert_eq!(tagged.altered(), 0);
    drop((volume, tagged));
    let (volume, tagged) = world.open(short_logs()).unwrap();
    let mut after = vec![0; world.size()];
    volume.read_at(0, &mut after).unwrap();
    assert!(before == after);
    // All that was flushed is known without asking the storage.
    assert_eq!(tagged.recovery().read, 0);
}

#[test]
fn what_was_never_written_reads_as_zeroes_without_the_storage() {
    let world = World::new(8);
    world.disk.replace(vec![0x77; world.size()]);
    let (volume, _) = world.open(short_logs()).unwrap();
    volume.write_at(2 * BLOCK as u64 + 512, &[5; 512]).unwrap();
    let mut content = vec![1; world.size()];
    volume.read_at(0, &mut content).unwrap();
    let mut expected = vec![0; world.size()];
    expected[2 * BLOCK + 512..2 * BLOCK + 1024].fill(5);
    assert!(content == expected);
    volume.discard(2 * BLOCK as u64..3 * BLOCK as u64).unwrap();
    world.disk.replace(vec![0x78; world.size()]);
    volume.read_at(0, &mut content).unwrap();
    assert!(content.iter().all(|byte| *byte == 0));
}

#[test]
fn an_altered_block_is_an_error_until_it_is_written_again() {
    let world = World::new(4);
    let (volume, tagged) = world.open(short_logs()).unwrap();
    volume.write_at(0, &vec![9; world.size()]).unwrap();
    let mut image = world.disk.image();
    image[BLOCK + 100] ^= 1;
    world.disk.replace(image);
    let mut sector = [0; 512];
    assert!(volume.read_at(BLOCK as u64 + 1024, &mut sector).is_err());
    // A part of it cannot be written: nothing of the rest is known.
    assert!(volume.write_at(BLOCK as u64 + 1024, &sector).is_err());
    assert_eq!(tagged.altered(), 2);
    assert_eq!(
        tagged.verify(0..world.size() as u64).unwrap(),
        [BLOCK as u64]
    );
    volume.write_at(BLOCK as u64, &[3; BLOCK]).unwrap();
    volume.read_at(BLOCK as u64 + 1024, &mut sector).unwrap();
    assert_eq!(sector, [3; 512]);
    assert!(tagged.verify(0..world.size() as u64).unwrap().is_empty());
}

#[test]
fn a_storage_that_became_shorter_is_refused() {
    let world = World::new(4);
    let (volume, _) = world.open(short_logs()).unwrap();
    volume.write_at(0, &vec![9; world.size()]).unwrap();
    volume.flush().unwrap();
    let image = world.disk.image();
    drop(volume);
    world.disk.replace(image[..3 * BLOCK].to_vec());
    let refused = world.open(short_logs());
    assert!(matches!(
        refused.map(|_| ()),
        Err(TagsError::Truncated {
            known: 16384,
            found: 12288
        })
    ));
    // One that became longer is as long as it was.
    world.disk.replace([&image[..], &[0; 2 * BLOCK]].concat());
    let (_, tagged) = world.open(short_logs()).unwrap();
    assert_eq!(tagged.geometry().size, world.size() as u64);
}

#[test]
fn a_reader_changes_nothing_on_the_host() {
    let world = World::new(8);
    let (volume, _) = world.open(short_logs()).unwrap();
    for block in 0..8_u8 {
        volume
            .write_at(u64::from(block) * BLOCK as u64, &[block; BLOCK])
            .unwrap();
    }
    drop(volume);
    let calls = world.calls();
    for _ in 0..2 {
        let (volume, tagged) = world.open(short_logs().read_only(true)).unwrap();
        let mut content = vec![0; world.size()];
        volume.read_at(0, &mut content).unwrap();
        let expected = |(at, byte): (usize, &u8)| usize::from(*byte) == at / BLOCK;
        assert!(content.iter().enumerate().all(expected));
        assert!(tagged.recovery().read > 0);
    }
    assert_eq!(world.calls(), calls);
}
