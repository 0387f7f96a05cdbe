//! Hostile qcow2 images: headers with one changed field each, and images with changes anywhere,
//! which are opened and used.

use std::sync::Arc;
use std::time::{Duration, Instant};

use luksmith::backend::memory::MemoryBackend;
use luksmith::layout::{ImageError, NewImage, Qcow2};
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};

use support::allocation::peak_of;
use support::fuzz_input::qcow2::follow;

fn image() -> Vec<u8> {
    let storage = Arc::new(MemoryBackend::new(0));
    Qcow2::create(storage.clone(), &NewImage::new(1 << 20, 4096)).unwrap();
    storage.to_bytes()
}

fn open(bytes: Vec<u8>) -> Result<Qcow2, ImageError> {
    Qcow2::open(Arc::new(MemoryBackend::from_bytes(bytes)))
}

#[test]
fn each_field_of_the_header_is_bounded() {
    open(image()).unwrap();
    // The offset, the bytes, and a word of the error. A cluster has 64 KiB. The refcount table is
    // cluster 1, its block is cluster 2, the L1 table is cluster 3, and the LUKS header starts at
    // cluster 4.
    let rows: &[(usize, &[u8], &str)] = &[
        (0, b"QFI\xfa", "not a qcow2 image"),
        (4, &[0, 0, 0, 4], "version"),
        (20, &[0, 0, 0, 8], "cluster_bits"),
        (20, &[0, 0, 0, 22], "cluster_bits"),
        (20, &[0xff; 4], "cluster_bits"),
        (24, &[0x7f; 8], "size"),
        (32, &[0, 0, 0, 0], "not encrypted"),
        (32, &[0, 0, 0, 1], "no protection"),
        (32, &[0, 0, 0, 3], "crypt_method"),
        (36, &[0xff; 4], "l1_size"),
        (40, &[0, 0, 0, 0, 0, 0, 2, 0], "l1_table_offset"),
        (40, &[0, 0, 0, 0, 0, 1, 0, 0], "overlaps the part"),
        (40, &[0, 0, 0, 0, 0, 4, 0, 0], "overlaps the part"),
        (40, &[0xff; 8], "l1_table_offset"),
        (48, &[0; 8], "refcount_table_offset"),
        (48, &[0xff; 8], "refcount_table_offset"),
        (56, &[0xff; 4], "refcount_table_clusters"),
        (56, &[0; 4], "refcount_table_offset"),
        (72, &[0, 0, 0, 0, 0, 0, 0, 0x20], "incompatible_features"),
        (72, &[0, 0, 0, 0, 0, 0, 0, 0x10], "extended L2"),
        (72, &[0, 0, 0, 0, 0, 0, 0, 8], "compression_type"),
        (96, &[0, 0, 0, 7], "refcount_order"),
        (100, &[0, 0, 0, 60], "header_length"),
        (100, &[0xff; 4], "header_length"),
        (104, &[0, 0, 0, 0], "no LUKS header"),
        (108, &[0, 0, 0, 17], "not 16"),
        (108, &[0xff; 4], "reaches over"),
        (112, &[0xff; 8], "encryption header"),
        (112, &[0; 8], "encryption header"),
        (120, &[0xff; 8], "encryption header"),
        (120, &[0; 8], "encryption header"),
        // Entries with reserved bits, with the offset of the header, and past the end.
        (65_536, &[0, 0, 0, 0, 0, 2, 0, 1], "refcount table entry"),
        (65_536, &[0, 0, 0, 0, 0, 1, 0, 0], "refcount table entry"),
        (65_544, &[0, 0, 0, 0, 0, 2, 0, 0], "is used twice"),
        (3 * 65_536, &[0, 0, 0, 0, 0, 1, 0, 0], "L1 entry"),
        (3 * 65_536, &[0x80, 0, 0, 0xff, 0, 0, 0, 0], "L1 entry"),
        (3 * 65_536, &[0x40, 0, 0, 0, 0, 0, 0, 0], "L1 entry"),
    ];
    for (at, bytes, word) in rows {
        let mut changed = image();
        changed[*at..at + bytes.len()].copy_from_slice(bytes);
        let (result, peak) = peak_of(|| open(changed));
        let text = result.map_or_else(|error| error.to_string(), |_| "opened".to_owned());
        assert!(text.contains(word), "byte {at}: {text}; expected {word:?}");
        assert!(peak < 64 << 20, "byte {at}: {peak} bytes");
    }
}

#[test]
fn the_largest_tables_stay_within_bounds() {
    let storage = Arc::new(MemoryBackend::new(0));
    // Clusters of 512 bytes need the largest L1 table for the smallest disk.
    let image = NewImage::new(128 << 30, 4096).cluster_size(512);
    Qcow2::create(storage.clone(), &image).unwrap();
    let (opened, peak) = peak_of(|| Qcow2::open(storage.clone()).unwrap());
    assert_eq!(opened.size(), 128 << 30);
    assert!(peak < 160 << 20, "{peak}");
    let larger = NewImage::new((128 << 30) + 512, 4096).cluster_size(512);
    assert!(matches!(
        Qcow2::create(storage, &larger),
        Err(ImageError::Size(_))
    ));
}

#[test]
fn changes_anywhere_do_no_harm() {
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let start = Instant::now();
    let mut opened = 0;
    for _ in 0..1500 {
        // A few changes, mostly in the tables, then some operations.
        let count = rng.random_range(0..6_u16);
        let mut bytes = count.to_le_bytes().to_vec();
        for _ in 0..count {
            let position: u32 = if rng.random() {
                rng.random_range(0..4096)
            } else {
                rng.random()
            };
            bytes.extend(&position.to_le_bytes()[..3]);
            bytes.push(rng.random());
        }
        for _ in 0..rng.random_range(0..30) {
            let offset = rng.random_range(0..270_000_u32).to_le_bytes();
            let len: u16 = rng.random_range(0..3000);
            bytes.extend([rng.random(), offset[0], offset[1], offset[2]]);
            bytes.extend(len.to_le_bytes());
        }
        let (was, peak) = peak_of(|| follow(&bytes));
        opened += usize::from(was);
        assert!(peak < 64 << 20, "{peak} bytes");
    }
    // Otherwise the test would have tried nothing.
    assert!(opened > 500, "{opened}");
    assert!(start.elapsed() < Duration::from_secs(120));
}
