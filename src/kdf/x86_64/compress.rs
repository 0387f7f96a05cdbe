//! The compression function G of argon2 (RFC 9106, section 3.5) on 512-bit registers.
//!
//! A block is a matrix of 8 rows with 16 words each. The permutation runs over each row, then over
//! each pair of columns. Blocks are stored by columns, so that a register holds one word of all 8
//! rows, and the 8 permutations of the first half run in parallel without moving a word. Between
//! the halves, and at the end, the matrix is transposed. XOR works on any storage order. All other
//! code that uses words of a block finds them with [`stored`].

use std::arch::x86_64::*;

use ::argon2::Block;

/// Proof that this CPU has the instructions. Only [`detect`](Self::detect) makes one.
#[derive(Clone, Copy)]
pub(in crate::kdf) struct Token(());

impl Token {
    pub(in crate::kdf) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

/// The position in memory of the word that the specification numbers `word`.
pub(super) const fn stored(word: usize) -> usize {
    word % 16 * 8 + word / 16
}

/// Sets `out` to G of `x` and `y`. If `adds` is set, in passes after the first, G is added to
/// `out`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn compress(x: &Block, y: &Block, out: &mut Block, adds: bool) {
    let mut v: [__m512i; 16] = std::array::from_fn(|at| _mm512_xor_si512(load(x, at), load(y, at)));
    permute(&mut v);
    let mut v = interleaved(
        transposed(every_second(&v, 0)),
        transposed(every_second(&v, 1)),
    );
    permute(&mut v);
    let v = interleaved(
        transposed(every_second(&v, 0)),
        transposed(every_second(&v, 1)),
    );
    for (at, v) in v.into_iter().enumerate() {
        // The XOR of all three.
        let mut word = _mm512_ternarylogic_epi64::<0x96>(v, load(x, at), load(y, at));
        if adds {
            word = _mm512_xor_si512(word, load(out, at));
        }
        store(out, at, word);
    }
}

/// Prefetches a block that is needed soon.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn prefetch(block: &Block) {
    for line in block.as_ref().chunks_exact(8) {
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(block: &Block, at: usize) -> __m512i {
    let words: &[u64] = &block.as_ref()[8 * at..8 * at + 8];
    // SAFETY: the slice has 64 bytes. The instruction needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(block: &mut Block, at: usize, value: __m512i) {
    let words: &mut [u64] = &mut block.as_mut()[8 * at..8 * at + 8];
    // SAFETY: the slice has 64 bytes. The instruction needs no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), value) }
}

/// 8 parallel permutations P on 16 words each (section 3.6).
#[inline]
#[target_feature(enable = "avx512f")]
fn permute(v: &mut [__m512i; 16]) {
    for [a, b, c, d] in [
        [0, 4, 8, 12],
        [1, 5, 9, 13],
        [2, 6, 10, 14],
        [3, 7, 11, 15],
        [0, 5, 10, 15],
        [1, 6, 11, 12],
        [2, 7, 8, 13],
        [3, 4, 9, 14],
    ] {
        v[a] = mixed(v[a], v[b]);
        v[d] = _mm512_ror_epi64::<32>(_mm512_xor_si512(v[d], v[a]));
        v[c] = mixed(v[c], v[d]);
        v[b] = _mm512_ror_epi64::<24>(_mm512_xor_si512(v[b], v[c]));
        v[a] = mixed(v[a], v[b]);
        v[d] = _mm512_ror_epi64::<16>(_mm512_xor_si512(v[d], v[a]));
        v[c] = mixed(v[c], v[d]);
        v[b] = _mm512_ror_epi64::<63>(_mm512_xor_si512(v[b], v[c]));
    }
}

/// Computes a + b + 2 · low half of a · low half of b.
#[inline]
#[target_feature(enable = "avx512f")]
fn mixed(a: __m512i, b: __m512i) -> __m512i {
    let product = _mm512_mul_epu32(a, b);
    let twice = _mm512_add_epi64(product, product);
    _mm512_add_epi64(_mm512_add_epi64(a, b), twice)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn every_second(v: &[__m512i; 16], first: usize) -> [__m512i; 8] {
    std::array::from_fn(|at| v[2 * at + first])
}

#[inline]
#[target_feature(enable = "avx512f")]
fn interleaved(even: [__m512i; 8], odd: [__m512i; 8]) -> [__m512i; 16] {
    std::array::from_fn(|at| {
        if at % 2 == 0 {
            even[at / 2]
        } else {
            odd[at / 2]
        }
    })
}

/// Transposes 8 registers: word `n` of register `m` becomes word `m` of register `n`.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; 8]) -> [__m512i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    let even = quarters(
        _mm512_unpacklo_epi64(a, b),
        _mm512_unpacklo_epi64(c, d),
        _mm512_unpacklo_epi64(e, f),
        _mm512_unpacklo_epi64(g, h),
    );
    let odd = quarters(
        _mm512_unpackhi_epi64(a, b),
        _mm512_unpackhi_epi64(c, d),
        _mm512_unpackhi_epi64(e, f),
        _mm512_unpackhi_epi64(g, h),
    );
    [
        even[0], odd[0], even[1], odd[1], even[2], odd[2], even[3], odd[3],
    ]
}

/// Transposes 4 registers of 4 pairs of words.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters(a: __m512i, b: __m512i, c: __m512i, d: __m512i) -> [__m512i; 4] {
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    let (ab02, ab13) = (
        _mm512_shuffle_i64x2::<EVEN>(a, b),
        _mm512_shuffle_i64x2::<ODD>(a, b),
    );
    let (cd02, cd13) = (
        _mm512_shuffle_i64x2::<EVEN>(c, d),
        _mm512_shuffle_i64x2::<ODD>(c, d),
    );
    [
        _mm512_shuffle_i64x2::<EVEN>(ab02, cd02),
        _mm512_shuffle_i64x2::<EVEN>(ab13, cd13),
        _mm512_shuffle_i64x2::<ODD>(ab02, cd02),
        _mm512_shuffle_i64x2::<ODD>(ab13, cd13),
    ]
}
