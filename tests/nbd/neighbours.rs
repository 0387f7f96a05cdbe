//! Unaligned writes do not change the bytes around them, even if other clients write there at the
//! same time.

use luksmith_formats::nbd::{CommandFlags, ErrorNumber};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::served::{Folder, SIZE, content};

#[test]
fn unaligned_writes_change_only_their_bytes() {
    for sector_size in ["512", "4096"] {
        let folder = Folder::new();
        folder.make_volume("disk.img", &["--sector-size", sector_size]);
        let served = folder.serve(&[]);
        let mut client = served.client();
        let mut expected = content();
        let write = (0..SIZE - 70_000, 1..70_000usize, any::<u8>());
        let mut runner = TestRunner::deterministic();
        for _ in 0..200 {
            let (offset, len, byte) = write.new_tree(&mut runner).unwrap().current();
            assert_eq!(client.write(offset, &vec![byte; len]), ErrorNumber::None);
            let start = usize::try_from(offset).unwrap();
            expected[start..start + len].fill(byte);
            // The bytes and those around them.
            let around = start.saturating_sub(5000)..(start + len + 5000).min(expected.len());
            assert!(client.read(around.start as u64, around.len() as u64) == expected[around]);
        }
        served.stop();
        assert!(folder.decrypted() == expected);
    }
}

#[test]
fn connections_that_write_into_one_sector_lose_nothing() {
    const WRITERS: usize = 4;
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    // Each connection writes every fourth run of 100 bytes in the first 64 KiB. No run ends at the
    // end of a sector.
    let runs: Vec<usize> = (0..65_536 - 100).step_by(100).collect();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (served, runs) = (&served, &runs);
            scope.spawn(move || {
                let mut client = served.client();
                for round in 0..3u8 {
                    for start in runs.iter().skip(writer).step_by(WRITERS) {
                        let byte = u8::try_from(writer).unwrap() * 16 + round;
                        let flags = CommandFlags::NONE;
                        let wrote = client.write_with(flags, *start as u64, &[byte; 100]);
                        assert_eq!(wrote, ErrorNumber::None);
                    }
                }
            });
        }
    });
    let mut expected = content();
    for (n, start) in runs.iter().enumerate() {
        let byte = u8::try_from(n % WRITERS).unwrap() * 16 + 2;
        expected[*start..start + 100].fill(byte);
    }
    // Once a write is replied on one connection, every other one reads it.
    assert!(served.client().read(0, SIZE) == expected);
    served.stop();
    assert!(folder.decrypted() == expected);
}
