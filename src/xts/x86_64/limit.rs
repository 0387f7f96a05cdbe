//! Runs only the rounds of AES, for benchmarks: an upper bound for the speed of a kernel.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::{aesni, vaes256, vaes512};

/// Registers that go through the rounds together. They are more than in the kernels, which need
/// some registers for other values, so that the AES unit is always busy.
const WIDE: usize = 12;

macro_rules! rounds_alone {
    ($name:ident, $token:ty, $features:literal, $set:ident, $round:ident, $bytes:literal) => {
        pub(in crate::xts) fn $name(_: $token, rounds: usize, len: usize) {
            // SAFETY: the token proves that this CPU has the instructions.
            unsafe { inner(rounds, len) };

            #[target_feature(enable = $features)]
            fn inner(rounds: usize, len: usize) {
                let key = $set(black_box(0x55aa));
                let mut blocks = [key; WIDE];
                for _ in 0..len / (WIDE * $bytes) {
                    for _ in 0..rounds / 2 {
                        for block in &mut blocks {
                            *block = $round(*block, key);
                        }
                        for block in &mut blocks {
                            *block = $round(*block, key);
                        }
                    }
                }
                black_box(blocks);
            }
        }
    };
}

rounds_alone!(
    aesni,
    aesni::Token,
    "aes,sse2",
    _mm_set1_epi32,
    _mm_aesenc_si128,
    16
);
rounds_alone!(
    vaes256,
    vaes256::Token,
    "vaes,avx2",
    _mm256_set1_epi32,
    _mm256_aesenc_epi128,
    32
);
rounds_alone!(
    vaes512,
    vaes512::Token,
    "vaes,avx512f",
    _mm512_set1_epi32,
    _mm512_aesenc_epi128,
    64
);
