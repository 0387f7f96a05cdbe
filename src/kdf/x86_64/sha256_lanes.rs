//! SHA-256 of sixteen messages at the same time with AVX-512: each vector has one word of every
//! message (FIPS 180-4, section 6.2.2).
//!
//! The SHA extensions need about two cycles for a byte on Intel, also if several messages are
//! interleaved. These vectors need about one.

use std::arch::x86_64::*;

use super::sha256::{K, START, unrolled};

/// The number of messages.
const LANES: usize = 16;

/// Proof that this CPU has the instructions. Only [`detect`](Self::detect) makes one.
#[derive(Clone, Copy)]
pub(in crate::kdf) struct Sha256Lanes(());

impl Sha256Lanes {
    pub(in crate::kdf) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        has.then_some(Self(()))
    }

    /// Appends the hash of each block of `block` bytes, as long as there are sixteen of them.
    /// Returns the rest. `block` is a multiple of 64.
    pub(in crate::kdf) fn append_each<'a>(
        self,
        bytes: &'a [u8],
        block: usize,
        to: &mut Vec<u8>,
    ) -> &'a [u8] {
        let mut rest = bytes;
        while let Some((messages, later)) = rest.split_at_checked(LANES * block) {
            // SAFETY: the value proves that this CPU has the instructions.
            let words = unsafe { hash(messages, block) };
            for lane in 0..LANES {
                for word in words {
                    to.extend_from_slice(&word[lane].to_be_bytes());
                }
            }
            rest = later;
        }
        rest
    }
}

/// The words of the hashes of sixteen messages of `length` bytes, each with a value for each
/// message.
#[target_feature(enable = "avx512f,avx512bw")]
fn hash(messages: &[u8], length: usize) -> [[u32; LANES]; 8] {
    let mut state = START.map(|word| _mm512_set1_epi32(word.cast_signed()));
    let mut lanes = [[].as_slice(); LANES];
    for (lane, message) in lanes.iter_mut().zip(messages.chunks_exact(length)) {
        *lane = message.as_chunks::<64>().0;
    }
    for at in 0..length / 64 {
        compress(&mut state, words_of(&lanes, at));
    }
    // The padding is the same for all: a bit, zeroes, and the length in bits.
    let [high @ .., a, b, c, d] = (length as u64 * 8).to_be_bytes();
    let mut padding = [_mm512_setzero_si512(); 16];
    padding[0] = _mm512_set1_epi32(i32::MIN);
    padding[14] = _mm512_set1_epi32(i32::from_be_bytes(high));
    padding[15] = _mm512_set1_epi32(i32::from_be_bytes([a, b, c, d]));
    compress(&mut state, padding);
    state.map(|words| {
        let mut lanes = [0; LANES];
        // SAFETY: the array has the 64 bytes that are written.
        unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), words) };
        lanes
    })
}

/// The sixteen words of block `at` of each message.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn words_of(lanes: &[&[[u8; 64]]; LANES], at: usize) -> [__m512i; 16] {
    let order = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
    let mut rows = [_mm512_setzero_si512(); LANES];
    for (row, lane) in rows.iter_mut().zip(lanes) {
        // SAFETY: a block has the 64 bytes that are read.
        let block = unsafe { _mm512_loadu_si512(lane[at].as_ptr().cast()) };
        *row = _mm512_shuffle_epi8(block, order);
    }
    transposed(rows)
}

/// Row `i` of the result has element `i` of every row.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut pairs = rows;
    for at in (0..16).step_by(2) {
        pairs[at] = _mm512_unpacklo_epi32(rows[at], rows[at + 1]);
        pairs[at + 1] = _mm512_unpackhi_epi32(rows[at], rows[at + 1]);
    }
    // Quarter `q` of `fours[4 * n + i]` has elements `4 * q + i` of rows `4 * n` to `4 * n + 3`.
    let mut fours = pairs;
    for at in (0..16).step_by(4) {
        fours[at] = _mm512_unpacklo_epi64(pairs[at], pairs[at + 2]);
        fours[at + 1] = _mm512_unpackhi_epi64(pairs[at], pairs[at + 2]);
        fours[at + 2] = _mm512_unpacklo_epi64(pairs[at + 1], pairs[at + 3]);
        fours[at + 3] = _mm512_unpackhi_epi64(pairs[at + 1], pairs[at + 3]);
    }
    let mut columns = fours;
    for i in 0..4 {
        let [a, b, c, d] = [fours[i], fours[i + 4], fours[i + 8], fours[i + 12]];
        let (ab_even, ab_odd) = (
            _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b),
        );
        let (cd_even, cd_odd) = (
            _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d),
        );
        columns[i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_even, cd_even);
        columns[i + 4] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_odd, cd_odd);
        columns[i + 8] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_even, cd_even);
        columns[i + 12] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_odd, cd_odd);
    }
    columns
}

/// The state after a block of each message.
#[target_feature(enable = "avx512f")]
fn compress(state: &mut [__m512i; 8], mut w: [__m512i; 16]) {
    /// The truth tables of `x ^ y ^ z`, of a choice, and of a majority.
    const XOR: i32 = 0x96;
    const CHOICE: i32 = 0xca;
    const MAJORITY: i32 = 0xe8;
    let mut s = *state;
    for (sixteen, constants) in K.as_chunks::<4>().0.iter().enumerate() {
        unrolled!(n in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 {
            if sixteen > 0 {
                let (w1, w14) = (w[(n + 1) % 16], w[(n + 14) % 16]);
                let low = _mm512_ternarylogic_epi32::<XOR>(
                    _mm512_ror_epi32::<7>(w1),
                    _mm512_ror_epi32::<18>(w1),
                    _mm512_srli_epi32::<3>(w1),
                );
                let high = _mm512_ternarylogic_epi32::<XOR>(
                    _mm512_ror_epi32::<17>(w14),
                    _mm512_ror_epi32::<19>(w14),
                    _mm512_srli_epi32::<10>(w14),
                );
                let sum = _mm512_add_epi32(w[n], w[(n + 9) % 16]);
                w[n] = _mm512_add_epi32(sum, _mm512_add_epi32(low, high));
            }
            // After each round every variable has the place of the one before it.
            let [a, b, c, d, e, f, g, h] = [0, 1, 2, 3, 4, 5, 6, 7].map(|at| (at + 16 - n) % 8);
            let constant = _mm512_set1_epi32(constants[n / 4][n % 4].cast_signed());
            let sum = _mm512_ternarylogic_epi32::<XOR>(
                _mm512_ror_epi32::<6>(s[e]),
                _mm512_ror_epi32::<11>(s[e]),
                _mm512_ror_epi32::<25>(s[e]),
            );
            let choice = _mm512_ternarylogic_epi32::<CHOICE>(s[e], s[f], s[g]);
            let first = _mm512_add_epi32(
                _mm512_add_epi32(s[h], _mm512_add_epi32(w[n], constant)),
                _mm512_add_epi32(sum, choice),
            );
            let sum = _mm512_ternarylogic_epi32::<XOR>(
                _mm512_ror_epi32::<2>(s[a]),
                _mm512_ror_epi32::<13>(s[a]),
                _mm512_ror_epi32::<22>(s[a]),
            );
            let majority = _mm512_ternarylogic_epi32::<MAJORITY>(s[a], s[b], s[c]);
            s[d] = _mm512_add_epi32(s[d], first);
            s[h] = _mm512_add_epi32(first, _mm512_add_epi32(sum, majority));
        });
    }
    for (state, s) in state.iter_mut().zip(s) {
        *state = _mm512_add_epi32(*state, s);
    }
}
