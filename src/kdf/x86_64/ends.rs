//! The first and the last steps of argon2 (RFC 9106, sections 3.2 and 3.3).
//!
//! With BLAKE2b they make the first blocks from the inputs, and the tag from the last blocks.

use ::argon2::Block;
use blake2::digest::block_api::{UpdateCore, VariableOutputCore};
use blake2::digest::block_buffer::LazyBuffer;
use blake2::{Blake2b512, Blake2bVarCore, Digest};

use super::compress::stored;
use super::fill::Shape;

/// Version 1.3 of argon2, as it is hashed.
const VERSION: u32 = 0x13;

/// Makes the first two blocks of each lane (steps 1, 3 and 4).
pub(in crate::kdf) fn begin(
    shape: Shape,
    memory_kib: u32,
    passphrase: &[u8],
    salt: &[u8],
    out_len: usize,
    memory: &mut [Block],
) {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let h0 = Blake2b512::new()
        .chain_update(number(shape.lanes))
        .chain_update(number(out_len))
        .chain_update(memory_kib.to_le_bytes())
        .chain_update(shape.passes.to_le_bytes())
        .chain_update(VERSION.to_le_bytes())
        .chain_update(shape.variant.to_le_bytes())
        .chain_update(number(passphrase.len()))
        .chain_update(passphrase)
        .chain_update(number(salt.len()))
        .chain_update(salt)
        // The lengths of the secret and of the associated data.
        .chain_update(number(0))
        .chain_update(number(0))
        .finalize();
    for (lane, blocks) in memory.chunks_exact_mut(shape.lane()).enumerate() {
        for (n, block) in blocks.iter_mut().take(2).enumerate() {
            let mut bytes = [0; Block::SIZE];
            hash(&[&h0, &number(n), &number(lane)], &mut bytes);
            for (word, bytes) in bytes.as_chunks().0.iter().enumerate() {
                block.as_mut()[stored(word)] = u64::from_le_bytes(*bytes);
            }
        }
    }
}

/// Makes the tag from the last block of each lane (steps 7 and 8).
pub(in crate::kdf) fn end(shape: Shape, memory: &[Block], out: &mut [u8]) {
    let mut sum = [0; Block::SIZE / 8];
    for lane in memory.chunks_exact(shape.lane()) {
        for (sum, word) in sum.iter_mut().zip(lane[lane.len() - 1].as_ref()) {
            *sum ^= word;
        }
    }
    let mut bytes = [0; Block::SIZE];
    for (word, bytes) in bytes.as_chunks_mut().0.iter_mut().enumerate() {
        *bytes = sum[stored(word)].to_le_bytes();
    }
    hash(&[&bytes], out);
}

/// H′ of section 3.3: a hash with output of any length.
fn hash(parts: &[&[u8]], out: &mut [u8]) {
    let len = u32::try_from(out.len()).unwrap_or(u32::MAX).to_le_bytes();
    let parts: Vec<&[u8]> = std::iter::once(&len[..])
        .chain(parts.iter().copied())
        .collect();
    if out.len() <= 64 {
        return short(&parts, out);
    }
    let mut hashed = Blake2b512::new();
    for part in parts {
        hashed.update(part);
    }
    let mut last = hashed.finalize();
    let mut rest = out;
    while rest.len() > 64 {
        let (chunk, others) = rest.split_at_mut(32);
        chunk.copy_from_slice(&last[..32]);
        rest = others;
        if rest.len() > 64 {
            last = Blake2b512::digest(last);
        }
    }
    short(&[&last], rest);
}

/// BLAKE2b with a digest of at most 64 bytes. The length is a parameter of BLAKE2b itself.
fn short(parts: &[&[u8]], out: &mut [u8]) {
    let Ok(mut core) = Blake2bVarCore::new(out.len()) else {
        return; // too long; no caller asks for this
    };
    let mut buffer = LazyBuffer::default();
    for part in parts {
        buffer.digest_blocks(part, |blocks| core.update_blocks(blocks));
    }
    let mut digest = Default::default();
    core.finalize_variable_core(&mut buffer, &mut digest);
    out.copy_from_slice(&digest[..out.len()]);
}
