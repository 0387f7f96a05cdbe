//! Any bytes as a superblock of dm-integrity, and numbers of 8 bytes: where it begins, the size of
//! the storage, and a range of the data. What it describes is inside of the storage.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luksmith_formats::dm_integrity::{ENTRIES, SUPERBLOCK, Superblock};

fuzz_target!(|bytes: &[u8]| {
    let Some((superblock, rest)) = bytes.split_first_chunk::<64>() else {
        return;
    };
    let mut numbers = rest.chunks_exact(8).map(|part| part.try_into().map_or(0, u64::from_le_bytes));
    let mut next = || numbers.next().unwrap_or(1 << 40);
    let (start, size, from, until) = (next(), next(), next(), next());
    let mut superblock = superblock.to_vec();
    superblock.resize(SUPERBLOCK, 0);
    superblock[..8].copy_from_slice(b"integrt\0");
    let Ok(superblock) = Superblock::parse(&superblock, start) else {
        return;
    };
    let Ok(places) = superblock.places(start, size) else {
        return;
    };
    assert!(places.end() <= size && places.journal().end <= places.end());
    let last = places.size() - u64::from(places.sector_size());
    for range in [from..until, 0..places.size(), last..places.size()] {
        if let Some(run) = places.run(range) {
            let sectors = run.len / u64::from(places.sector_size());
            let tags = sectors * places.tag_size() as u64;
            assert!(run.data >= places.journal().end && run.data + run.len <= places.end());
            assert!(run.tags >= places.journal().end && run.tags + tags <= run.data);
        }
    }
    _ = places.used_entry(&[0xff; ENTRIES]);
});
