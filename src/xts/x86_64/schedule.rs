//! The key schedule of AES (FIPS 197, section 5.2) and of its equivalent inverse cipher (section
//! 5.3.5).

use std::arch::x86_64::*;

use zeroize::Zeroize;

/// Expands a key to its `KEYS` round keys: 11 from 16 bytes, 13 from 24, 15 from 32.
#[target_feature(enable = "aes,ssse3")]
pub(super) fn expand<const KEYS: usize>(key: &[u8]) -> [__m128i; KEYS] {
    let (given, _) = key.as_chunks::<4>();
    let mut words = [[0_u32; 4]; KEYS];
    let flat = words.as_flattened_mut();
    for (word, bytes) in flat.iter_mut().zip(given) {
        *word = u32::from_le_bytes(*bytes);
    }
    let mut constant = 1;
    for n in given.len()..flat.len() {
        let last = flat[n - 1];
        let word = match n % given.len() {
            0 => {
                let word = substituted(last.rotate_right(8)) ^ constant;
                constant = (constant << 1) ^ ((constant >> 7) * 0x11b);
                word
            }
            4 if given.len() == 8 => substituted(last),
            _ => last,
        };
        flat[n] = flat[n - given.len()] ^ word;
    }
    let keys = words.map(|[a, b, c, d]| {
        let low = u64::from(a) | u64::from(b) << 32;
        let high = u64::from(c) | u64::from(d) << 32;
        _mm_set_epi64x(high.cast_signed(), low.cast_signed())
    });
    words.zeroize();
    keys
}

/// Applies the S-box to each byte of `word`. All four words of the register are the same, so that
/// the instruction's ShiftRows step changes nothing.
#[inline]
#[target_feature(enable = "aes,ssse3")]
fn substituted(word: u32) -> u32 {
    let words = _mm_set1_epi32(word.cast_signed());
    let words = _mm_aesenclast_si128(words, _mm_setzero_si128());
    _mm_cvtsi128_si32(words).cast_unsigned()
}

/// The round keys for decryption, in order of use.
#[target_feature(enable = "aes,ssse3")]
pub(super) fn inverse<const KEYS: usize>(keys: &[__m128i; KEYS]) -> [__m128i; KEYS] {
    let mut inverse = *keys;
    inverse.reverse();
    for key in &mut inverse[1..KEYS - 1] {
        *key = _mm_aesimc_si128(*key);
    }
    inverse
}

/// Encrypts one block.
#[inline]
#[target_feature(enable = "aes,ssse3")]
pub(super) fn encrypt<const KEYS: usize>(keys: &[__m128i; KEYS], block: [i64; 2]) -> __m128i {
    let mut block = _mm_xor_si128(_mm_set_epi64x(block[1], block[0]), keys[0]);
    for key in &keys[1..KEYS - 1] {
        block = _mm_aesenc_si128(block, *key);
    }
    _mm_aesenclast_si128(block, keys[KEYS - 1])
}
