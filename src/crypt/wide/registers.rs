//! Loads, stores and transpositions of registers of 32 and of 64 bytes.

use std::arch::x86_64::*;

/// A register for each of the four words of eight blocks.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn words_of(blocks: &[[u8; 16]; 8]) -> [__m256i; 4] {
    let (pairs, _) = blocks.as_chunks::<2>();
    transposed([
        load(&pairs[0]),
        load(&pairs[1]),
        load(&pairs[2]),
        load(&pairs[3]),
    ])
}

/// The reverse of [`words_of`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn put_words(blocks: &mut [[u8; 16]; 8], words: [__m256i; 4]) {
    let (pairs, _) = blocks.as_chunks_mut::<2>();
    for (pair, register) in pairs.iter_mut().zip(transposed(words)) {
        store(pair, register);
    }
}

/// Transposes the four words in each half of four registers.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transposed([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (ab, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (cd, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// 16 bytes in both halves of a register.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn twice(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: the reference makes 16 bytes readable. The instruction needs no alignment.
    let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    _mm256_broadcastsi128_si256(bytes)
}

/// Two blocks.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load(blocks: &[[u8; 16]; 2]) -> __m256i {
    // SAFETY: the reference makes 32 bytes readable. The instruction needs no alignment.
    unsafe { _mm256_loadu_si256(blocks.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store(blocks: &mut [[u8; 16]; 2], register: __m256i) {
    // SAFETY: the reference makes 32 bytes writable. The instruction needs no alignment.
    unsafe { _mm256_storeu_si256(blocks.as_mut_ptr().cast(), register) }
}

/// A register for each of the four words of 16 blocks.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn words_of_16(blocks: &[[u8; 16]; 16]) -> [__m512i; 4] {
    let (fours, _) = blocks.as_chunks::<4>();
    transposed_512([
        load_four(&fours[0]),
        load_four(&fours[1]),
        load_four(&fours[2]),
        load_four(&fours[3]),
    ])
}

/// The reverse of [`words_of_16`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn put_words_of_16(blocks: &mut [[u8; 16]; 16], words: [__m512i; 4]) {
    let (fours, _) = blocks.as_chunks_mut::<4>();
    for (four, register) in fours.iter_mut().zip(transposed_512(words)) {
        store_four(four, register);
    }
}

/// Transposes the four words in each quarter of four registers.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed_512([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab, cd),
        _mm512_unpackhi_epi64(ab, cd),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Four blocks.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_four(blocks: &[[u8; 16]; 4]) -> __m512i {
    // SAFETY: the reference makes 64 bytes readable. The instruction needs no alignment.
    unsafe { _mm512_loadu_si512(blocks.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_four(blocks: &mut [[u8; 16]; 4], register: __m512i) {
    // SAFETY: the reference makes 64 bytes writable. The instruction needs no alignment.
    unsafe { _mm512_storeu_si512(blocks.as_mut_ptr().cast(), register) }
}
