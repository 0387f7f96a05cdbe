//! VAES on registers of 256 bits: two blocks in each, eight of them in flight.

use std::arch::x86_64::*;

use zeroize::Zeroize;

use super::schedule;
use crate::xts::{BLOCK, Keyed, Tweaks, XtsError};

/// Registers in flight, enough to hide the latency of a round.
const WIDE: usize = 8;
/// Blocks in a register.
const LANES: usize = 2;
/// The bytes that one pass through the rounds takes.
const STEP: usize = WIDE * LANES * BLOCK;
/// How many sectors have their first tweaks encrypted together.
const SECTORS: usize = WIDE * LANES;

// --- the token --------------------------------------------------------------------------------------------------

/// Proof that this CPU has the instructions: only looking makes one.
#[derive(Clone, Copy)]
pub(in crate::xts) struct Token(());

impl Token {
    pub(in crate::xts) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("vpclmulqdq");
        has.then_some(Self(()))
    }
}

// --- keys and dispatch ------------------------------------------------------------------------------------------

/// The key schedules, by key size.
pub(in crate::xts) enum Xts {
    Aes128(Token, Box<Keys<11>>),
    Aes256(Token, Box<Keys<15>>),
}

/// Each round key is there once for every lane.
pub(in crate::xts) struct Keys<const KEYS: usize> {
    encrypt: [__m256i; KEYS],
    decrypt: [__m256i; KEYS],
    tweak: [__m256i; KEYS],
}

impl Xts {
    pub(in crate::xts) fn new(token: Token, key: &[u8]) -> Result<Self, XtsError> {
        match key.len() {
            // SAFETY: the token proves that this CPU has the instructions.
            32 => Ok(Self::Aes128(token, unsafe { Keys::new(key) })),
            // SAFETY: as above.
            64 => Ok(Self::Aes256(token, unsafe { Keys::new(key) })),
            len => Err(XtsError::KeySize(len)),
        }
    }
}

impl Keyed for Xts {
    fn encrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        match self {
            // SAFETY: the token proves that this CPU has the instructions.
            Self::Aes128(_, keys) => unsafe { keys.run::<true>(tweaks, sector_size, data) },
            // SAFETY: as above.
            Self::Aes256(_, keys) => unsafe { keys.run::<true>(tweaks, sector_size, data) },
        }
    }

    fn decrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        match self {
            // SAFETY: the token proves that this CPU has the instructions.
            Self::Aes128(_, keys) => unsafe { keys.run::<false>(tweaks, sector_size, data) },
            // SAFETY: as above.
            Self::Aes256(_, keys) => unsafe { keys.run::<false>(tweaks, sector_size, data) },
        }
    }
}

impl<const KEYS: usize> Drop for Keys<KEYS> {
    fn drop(&mut self) {
        self.encrypt.zeroize();
        self.decrypt.zeroize();
        self.tweak.zeroize();
    }
}

// --- runs of sectors --------------------------------------------------------------------------------------------

/// The first tweaks of sectors, encrypted. One more than there are sectors is read, and not used.
#[repr(align(32))]
struct Firsts([[u8; BLOCK]; SECTORS + 1]);

impl<const KEYS: usize> Keys<KEYS> {
    #[target_feature(enable = "aes,ssse3,vaes,avx2,vpclmulqdq")]
    fn new(key: &[u8]) -> Box<Self> {
        let zero = [_mm256_setzero_si256(); KEYS];
        let mut keys = Box::new(Self {
            encrypt: zero,
            decrypt: zero,
            tweak: zero,
        });
        let (data, tweak) = key.split_at(key.len() / 2);
        let data = schedule::expand::<KEYS>(data);
        keys.encrypt = data.map(|key| _mm256_broadcastsi128_si256(key));
        keys.decrypt = schedule::inverse(&data).map(|key| _mm256_broadcastsi128_si256(key));
        keys.tweak = schedule::expand::<KEYS>(tweak).map(|key| _mm256_broadcastsi128_si256(key));
        keys
    }

    #[target_feature(enable = "aes,ssse3,vaes,avx2,vpclmulqdq")]
    fn run<const ENCRYPT: bool>(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        let keys = if ENCRYPT {
            &self.encrypt
        } else {
            &self.decrypt
        };
        let mut padded = [0; STEP];
        for data in data.chunks_mut(sector_size.saturating_mul(SECTORS)) {
            let mut firsts = Firsts([[0; BLOCK]; SECTORS + 1]);
            let firsts = &mut firsts.0;
            self.first_tweaks(&mut tweaks, data.len() / sector_size, firsts);
            let mut powers = spread(&firsts[0]);
            for (sector, after) in data.chunks_exact_mut(sector_size).zip(&firsts[1..]) {
                let (steps, rest) = sector.as_chunks_mut::<STEP>();
                let (steps, last) = match steps.split_last_mut() {
                    Some((last, steps)) if rest.is_empty() => (steps, last),
                    _ => {
                        padded[..rest.len()].copy_from_slice(rest);
                        (steps, &mut padded)
                    }
                };
                for step in steps {
                    powers = pass::<KEYS, ENCRYPT, false>(keys, step, powers, after);
                }
                powers = pass::<KEYS, ENCRYPT, true>(keys, last, powers, after);
                if !rest.is_empty() {
                    rest.copy_from_slice(&padded[..rest.len()]);
                    padded.zeroize();
                }
            }
        }
    }

    /// The tweaks of up to `SECTORS` sectors. A few take one register, which is as soon done as one block.
    #[inline]
    #[target_feature(enable = "aes,ssse3,vaes,avx2,vpclmulqdq")]
    fn first_tweaks(
        &self,
        tweaks: &mut Tweaks,
        sectors: usize,
        firsts: &mut [[u8; BLOCK]; SECTORS + 1],
    ) {
        for first in &mut firsts[..sectors] {
            *first = tweaks.next_tweak();
        }
        let (firsts, _) = firsts
            .as_flattened_mut()
            .as_chunks_mut::<{ LANES * BLOCK }>();
        if sectors <= LANES {
            let mut block = _mm256_xor_si256(load(&firsts[0]), self.tweak[0]);
            for key in &self.tweak[1..KEYS - 1] {
                block = _mm256_aesenc_epi128(block, *key);
            }
            block = _mm256_aesenclast_epi128(block, self.tweak[KEYS - 1]);
            store(&mut firsts[0], block);
            return;
        }
        let mut blocks = [self.tweak[0]; WIDE];
        for n in 0..WIDE {
            blocks[n] = _mm256_xor_si256(blocks[n], load(&firsts[n]));
        }
        for key in &self.tweak[1..KEYS - 1] {
            for n in 0..WIDE {
                blocks[n] = _mm256_aesenc_epi128(blocks[n], *key);
            }
        }
        for n in 0..WIDE {
            blocks[n] = _mm256_aesenclast_epi128(blocks[n], self.tweak[KEYS - 1]);
            store(&mut firsts[n], blocks[n]);
        }
    }
}

// --- one pass through the rounds --------------------------------------------------------------------------------

/// Encrypts or decrypts with the tweaks `now`, and returns those of the next pass: of the sector whose first tweak is
/// `after` where this one `ENDS` its sector. They are computed between the rounds, one register in each.
#[inline]
#[target_feature(enable = "aes,ssse3,vaes,avx2,vpclmulqdq")]
fn pass<const KEYS: usize, const ENCRYPT: bool, const ENDS: bool>(
    keys: &[__m256i; KEYS],
    data: &mut [u8; STEP],
    now: [__m256i; WIDE],
    after: &[u8; BLOCK],
) -> [__m256i; WIDE] {
    let (data, _) = data.as_chunks_mut::<{ LANES * BLOCK }>();
    let mut next = now;
    let mut blocks = now;
    for n in 0..WIDE {
        blocks[n] = xor3(load(&data[n]), now[n], keys[0]);
    }
    unrolled!(round in 1 2 3 4 5 6 7 8 9 10 11 12 13 {
        if round < KEYS - 1 {
            for block in &mut blocks {
                *block = if ENCRYPT {
                    _mm256_aesenc_epi128(*block, keys[round])
                } else {
                    _mm256_aesdec_epi128(*block, keys[round])
                };
            }
            let n = (round - 1).min(WIDE - 1);
            if round <= WIDE {
                next[n] = if !ENDS {
                    times_x16(now[n])
                } else if n < SPREAD {
                    powers(after, n)
                } else {
                    times_x8(next[n - SPREAD])
                };
            }
            barrier(&mut blocks, &mut next, n);
        }
    });
    for n in 0..WIDE {
        let key = _mm256_xor_si256(keys[KEYS - 1], now[n]);
        blocks[n] = if ENCRYPT {
            _mm256_aesenclast_epi128(blocks[n], key)
        } else {
            _mm256_aesdeclast_epi128(blocks[n], key)
        };
        store(&mut data[n], blocks[n]);
    }
    next
}

/// Keeps the compiler from gathering what was laid between the rounds.
#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
fn barrier(blocks: &mut [__m256i; WIDE], tweaks: &mut [__m256i; WIDE], n: usize) {
    // SAFETY: it has no instructions.
    unsafe {
        std::arch::asm!(
            "/* {} {} {} {} {} {} {} {} {} */",
            inout(ymm_reg) blocks[0],
            inout(ymm_reg) blocks[1],
            inout(ymm_reg) blocks[2],
            inout(ymm_reg) blocks[3],
            inout(ymm_reg) blocks[4],
            inout(ymm_reg) blocks[5],
            inout(ymm_reg) blocks[6],
            inout(ymm_reg) blocks[7],
            inout(ymm_reg) tweaks[n],
            options(nostack, preserves_flags),
        );
    }
}

// --- tweaks -----------------------------------------------------------------------------------------------------

/// The registers that eight powers of x fill.
const SPREAD: usize = 8 / LANES;

/// The tweaks of a sector's first pass: its first tweak times 1, x, x² and so on.
#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
fn spread(first: &[u8; BLOCK]) -> [__m256i; WIDE] {
    let mut tweaks = [_mm256_setzero_si256(); WIDE];
    for n in 0..WIDE {
        tweaks[n] = if n < SPREAD {
            powers(first, n)
        } else {
            times_x8(tweaks[n - SPREAD])
        };
    }
    tweaks
}

/// The first tweak times x to the power of the number of the lane, in the register `n` of a sector's first.
#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
fn powers(first: &[u8; BLOCK], n: usize) -> __m256i {
    let first = broadcast(first);
    let (even, odd) = (
        (2 * n).cast_signed() as i64,
        (2 * n + 1).cast_signed() as i64,
    );
    let up = _mm256_setr_epi64x(even, even, odd, odd);
    let down = _mm256_sub_epi64(_mm256_set1_epi64x(64), up);
    let carried = _mm256_srlv_epi64(first, down);
    let shifted = _mm256_sllv_epi64(first, up);
    let shifted = _mm256_xor_si256(shifted, _mm256_bslli_epi128::<8>(carried));
    reduced(shifted, _mm256_bsrli_epi128::<8>(carried))
}

#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
fn times_x8(tweaks: __m256i) -> __m256i {
    reduced(
        _mm256_bslli_epi128::<1>(tweaks),
        _mm256_bsrli_epi128::<15>(tweaks),
    )
}

#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
fn times_x16(tweaks: __m256i) -> __m256i {
    reduced(
        _mm256_bslli_epi128::<2>(tweaks),
        _mm256_bsrli_epi128::<14>(tweaks),
    )
}

/// Adds what was shifted `out` at the top, modulo x^128 + x^7 + x^2 + x + 1: one carry-less product in the place of three
/// shifts, which on Intel's CPUs take the place of AES instructions. A quarter faster there.
#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
fn reduced(shifted: __m256i, out: __m256i) -> __m256i {
    let modulus = _mm256_set1_epi64x(0x87);
    _mm256_xor_si256(shifted, _mm256_clmulepi64_epi128::<0>(out, modulus))
}

#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
fn xor3(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
    _mm256_xor_si256(_mm256_xor_si256(a, b), c)
}

// --- memory -----------------------------------------------------------------------------------------------------

#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
fn load(bytes: &[u8; LANES * BLOCK]) -> __m256i {
    // SAFETY: that many bytes are readable there; they need no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
fn store(bytes: &mut [u8; LANES * BLOCK], blocks: __m256i) {
    // SAFETY: that many bytes are writable there; they need no alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), blocks) }
}

#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
fn broadcast(block: &[u8; BLOCK]) -> __m256i {
    // SAFETY: 16 bytes are readable there; they need no alignment.
    let block = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
    _mm256_broadcastsi128_si256(block)
}
