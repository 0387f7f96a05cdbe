//! Operations by several threads at the same time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use luksmith_formats::{CipherSpec, EssivHash, IvGenerator, Mode};

use crate::{Storage, volume};

const THREADS: usize = 4;
const ROUNDS: usize = 60;

/// The second cipher would show a torn sector, since one changed byte changes everything after it.
const SPECS: [CipherSpec; 2] = [
    CipherSpec::AES_XTS_PLAIN64,
    CipherSpec {
        mode: Mode::Cbc,
        iv: IvGenerator::Essiv(EssivHash::Sha256),
        ..CipherSpec::AES_XTS_PLAIN64
    },
];

/// Each thread owns every [`THREADS`]th stripe, and after each round reads there what it wrote.
fn stripes(storage: Storage, spec: CipherSpec, sector_size: u32, stripe: usize) {
    let size = 32 << 10;
    let volume = volume(storage, spec, sector_size, size);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let volume = &volume;
            scope.spawn(move || {
                let places: Vec<usize> = (thread * stripe..size - stripe)
                    .step_by(THREADS * stripe)
                    .collect();
                for round in 0..ROUNDS {
                    let value = (round * THREADS + thread + 1).to_le_bytes()[0];
                    // A few places in each round, in a different order for each thread.
                    let chosen =
                        (0..6).map(|n| places[(round * 7 + thread * 13 + n * 31) % places.len()]);
                    for place in chosen {
                        volume.write_at(place as u64, &vec![value; stripe]).unwrap();
                        let mut read = vec![0; stripe];
                        volume.read_at(place as u64, &mut read).unwrap();
                        assert_eq!(read, vec![value; stripe], "thread {thread}, byte {place}");
                    }
                }
            });
        }
    });
}

#[test]
fn threads_with_sectors_of_their_own() {
    for storage in Storage::ALL {
        for spec in SPECS {
            stripes(storage, spec, 512, 4096);
            stripes(storage, spec, 4096, 4096);
        }
    }
}

#[test]
fn threads_in_the_same_sectors() {
    for storage in Storage::ALL {
        for spec in SPECS {
            for (sector_size, stripe) in [(512, 100), (512, 700), (4096, 33), (4096, 1000)] {
                stripes(storage, spec, sector_size, stripe);
            }
        }
    }
}

/// Two threads write to the same place, with requests of several pieces. A reader sees one of the
/// two requests, never a mixture.
#[test]
fn a_request_is_seen_whole() {
    const LEN: usize = 600_000;
    for storage in Storage::ALL {
        for spec in SPECS {
            let volume = volume(storage, spec, 512, 640 << 10);
            volume.write_at(1000, &[1; LEN]).unwrap();
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                let writers = [2, 3].map(|value| {
                    let volume = &volume;
                    scope.spawn(move || {
                        for _ in 0..12 {
                            volume.write_at(1000, &[value; LEN]).unwrap();
                        }
                    })
                });
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let mut read = vec![0; LEN];
                        volume.read_at(1000, &mut read).unwrap();
                        assert!(read.iter().all(|byte| *byte == read[0]), "torn");
                    }
                });
                for writer in writers {
                    writer.join().unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
        }
    }
}
