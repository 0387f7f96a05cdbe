//! The key schedule of AES (FIPS 197, section 5.2) and of its equivalent inverse cipher (section
//! 5.3.5).

use std::arch::x86_64::*;

/// Expands a key to its `KEYS` round keys: 11 from 16 bytes, 15 from 32.
#[target_feature(enable = "aes,ssse3")]
pub(super) fn expand<const KEYS: usize>(key: &[u8]) -> [__m128i; KEYS] {
    let mut keys = [_mm_setzero_si128(); KEYS];
    let (given, _) = key.as_chunks::<16>();
    for (key, bytes) in keys.iter_mut().zip(given) {
        *key = load(bytes);
    }
    let long = given.len() == 2;
    let mut constant = 1;
    for n in given.len()..KEYS {
        let last = keys[n - 1];
        // All four words are the same, so that the instruction's ShiftRows step changes nothing: it
        // only applies the S-box and adds its key.
        let word = if long && n % 2 == 1 {
            let word = _mm_shuffle_epi32::<0xff>(last);
            _mm_aesenclast_si128(word, _mm_setzero_si128())
        } else {
            let rotated = _mm_shuffle_epi8(last, _mm_set1_epi32(0x0c0f_0e0d));
            let word = _mm_aesenclast_si128(rotated, _mm_set1_epi32(constant));
            constant = (constant << 1) ^ ((constant >> 7) * 0x11b);
            word
        };
        let mut key = keys[n - given.len()];
        key = _mm_xor_si128(key, _mm_slli_si128::<4>(key));
        key = _mm_xor_si128(key, _mm_slli_si128::<8>(key));
        keys[n] = _mm_xor_si128(key, word);
    }
    keys
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

#[inline]
#[target_feature(enable = "sse2")]
fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference makes 16 bytes readable. The instruction needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}
