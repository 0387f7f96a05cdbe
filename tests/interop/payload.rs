//! What is written into volumes: bytes that never repeat, computed from a seed.

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// `len` bytes that depend only on `seed` and on their position (SplitMix64). A sector in the wrong
/// place, or of another test's payload, therefore differs.
pub(crate) fn payload(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// SHA-256 in hexadecimal, as `sha256sum` prints it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Compares whole images. The message says where they differ, and does not contain them.
pub(crate) fn assert_same(left: &[u8], right: &[u8], what: &str) {
    assert_eq!(left.len(), right.len(), "{what}: the lengths differ");
    if let Some(at) = left.iter().zip(right).position(|(a, b)| a != b) {
        let sectors = left
            .chunks(512)
            .zip(right.chunks(512))
            .filter(|(a, b)| a != b)
            .count();
        panic!("{what}: differ first at byte {at}, in {sectors} sectors of 512 bytes");
    }
}

/// A new file of `bytes`.
pub(crate) fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("the temporary folder is writable");
    path
}

/// A new sparse file of `size` bytes.
pub(crate) fn sparse(folder: &Path, name: &str, size: u64) -> PathBuf {
    let path = folder.join(name);
    std::fs::File::create_new(&path)
        .and_then(|file| file.set_len(size))
        .expect("the temporary folder is writable");
    path
}

#[test]
fn payloads_depend_on_seed_and_position() {
    let one = payload(1, 4099);
    assert_eq!(one.len(), 4099);
    assert_eq!(one[..64], payload(1, 64)[..]);
    assert_ne!(one[..64], payload(2, 64)[..]);
    let sectors: std::collections::HashSet<_> = one.chunks(16).collect();
    assert_eq!(sectors.len(), 4099usize.div_ceil(16));
}

#[test]
#[should_panic(expected = "differ first at byte 1030, in 2 sectors")]
fn a_difference_is_found_and_placed() {
    let one = payload(1, 4096);
    let mut other = one.clone();
    other[1030] ^= 1;
    other[4095] ^= 1;
    assert_same(&one, &other, "images");
}
