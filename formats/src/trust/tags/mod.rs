//! The store of tags: one tag for each block of 4 KiB of a volume's ciphertext.
//!
//! ```text
//! tags      a head of 4 KiB, then the tag of each block, 16 bytes each
//! tags.0    a log: a head of 512 bytes, then frames of records
//! tags.1    the other log
//! ```
//!
//! A tag lies within 512 bytes of the file, which a disk writes completely or not at all. What is
//! behind the end of the file, and its holes, are tags of blocks that were never written. Numbers
//! are big-endian.

pub mod head;
pub mod log;
#[cfg(test)]
mod tests;

/// The bytes of ciphertext that have one tag. The last block of a volume may be shorter.
pub const BLOCK: u64 = 4096;

/// The bytes of a tag.
pub const TAG: usize = 16;

/// The tag of a block.
pub type Tag = [u8; TAG];

/// The tag of a block that was never written. It reads as zeroes.
pub const NEVER: Tag = [0; TAG];

/// The tag of a block whose content is none that was written. Nothing matches it.
pub const LOST: Tag = [0xff; TAG];

/// Where the first tag is in the file of tags, in bytes.
pub const FIRST: u64 = 4096;

/// The most blocks that a volume can have: its bytes have 64-bit offsets.
pub const MOST_BLOCKS: u64 = u64::MAX / BLOCK;

/// Where the tag of a block is, in bytes.
#[must_use]
pub fn place(block: u64) -> u64 {
    FIRST.saturating_add(block.saturating_mul(TAG as u64))
}

/// The first bytes of the SHA-256 of these parts, to find what was written partly.
fn sum(parts: &[&[u8]]) -> [u8; 8] {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().first_chunk().copied().unwrap_or_default()
}
