//! The AES extension of ARMv8: a block in each register, eight of them in flight. The sections are those of the kernels
//! for x86-64; what differs is that an instruction adds its round key first.

#![allow(unsafe_code)] // memory into registers and back, and the step into functions for a CPU that was detected
#![allow(clippy::needless_range_loop)] // a register by its number, in several arrays

use std::arch::aarch64::*;

use zeroize::Zeroize;

use super::in_place::in_place;
use super::tweak::Numbers;
use super::{BLOCK, Keyed, Memory, Tweaks, XtsError};

/// Registers in flight, enough to hide the latency of a round.
const WIDE: usize = 8;
/// The bytes that one pass through the rounds takes.
const STEP: usize = WIDE * BLOCK;
/// How many sectors have their first tweaks encrypted together.
const SECTORS: usize = WIDE;

// --- the token --------------------------------------------------------------------------------------------------

/// Proof that this CPU has the instructions: only looking makes one.
#[derive(Clone, Copy)]
pub(super) struct Token(());

impl Token {
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("aes").then_some(Self(()))
    }
}

// --- keys and dispatch ------------------------------------------------------------------------------------------

/// The key schedules, by key size.
pub(super) enum Xts<M: Memory> {
    Aes128(Token, M::Held<Keys<11>>),
    Aes256(Token, M::Held<Keys<15>>),
}

pub(super) struct Keys<const KEYS: usize> {
    encrypt: [uint8x16_t; KEYS],
    decrypt: [uint8x16_t; KEYS],
    tweak: [uint8x16_t; KEYS],
}

impl<M: Memory> Xts<M> {
    pub(super) fn new<E>(token: Token, key: &[u8]) -> Result<Self, E>
    where
        E: From<XtsError> + From<M::Error>,
    {
        match key.len() {
            // SAFETY: the token proves that this CPU has the instructions.
            32 => Ok(Self::Aes128(token, M::hold(unsafe { Keys::new(key) })?)),
            // SAFETY: as above.
            64 => Ok(Self::Aes256(token, M::hold(unsafe { Keys::new(key) })?)),
            len => Err(XtsError::KeySize(len).into()),
        }
    }
}

impl<M: Memory> Keyed for Xts<M> {
    fn takes(&self, sector_size: usize) -> bool {
        sector_size.is_multiple_of(STEP)
    }

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
        for keys in [&mut self.encrypt, &mut self.decrypt, &mut self.tweak] {
            keys.zeroize();
        }
    }
}

// --- runs of sectors --------------------------------------------------------------------------------------------

/// The first tweaks of sectors, encrypted. One more than there are sectors is read, and not used.
type Firsts = [[u8; BLOCK]; SECTORS + 1];

impl<const KEYS: usize> Keys<KEYS> {
    #[target_feature(enable = "aes")]
    fn new(key: &[u8]) -> Self {
        let (data, tweak) = key.split_at(key.len() / 2);
        let data = expand::<KEYS>(data);
        Self {
            encrypt: data,
            decrypt: inverse(&data),
            tweak: expand::<KEYS>(tweak),
        }
    }

    #[target_feature(enable = "aes")]
    fn run<const ENCRYPT: bool>(
        &self,
        mut tweaks: Tweaks,
        sector_size: usize,
        mut data: &mut [u8],
    ) {
        let mut firsts: Firsts = [[0; BLOCK]; SECTORS + 1];
        while !data.is_empty() {
            let numbers = tweaks.take((data.len() / sector_size).min(SECTORS));
            let (run, others) = data.split_at_mut(numbers.count() * sector_size);
            data = others;
            let schedules = in_place(self);
            let first = schedules.first_tweaks(&numbers, &mut firsts);
            let keys = if ENCRYPT {
                &schedules.encrypt
            } else {
                &schedules.decrypt
            };
            let mut powers = spread(first);
            for (sector, after) in run.chunks_exact_mut(sector_size).zip(&firsts[1..]) {
                let (steps, _) = sector.as_chunks_mut::<STEP>();
                let Some((last, steps)) = steps.split_last_mut() else {
                    return;
                };
                for step in steps {
                    powers = pass::<KEYS, ENCRYPT, false>(keys, step, powers, after);
                }
                powers = pass::<KEYS, ENCRYPT, true>(keys, last, powers, after);
            }
        }
    }

    /// The tweaks of up to `SECTORS` sectors; returns the first, so that it need not come back from memory.
    #[inline]
    #[target_feature(enable = "aes")]
    fn first_tweaks(&self, numbers: &Numbers, firsts: &mut Firsts) -> uint8x16_t {
        let wide = if numbers.count() == 1 { 1 } else { WIDE };
        let mut blocks = spread_numbers(numbers);
        for key in &self.tweak[..KEYS - 2] {
            for block in &mut blocks[..wide] {
                *block = vaesmcq_u8(vaeseq_u8(*block, *key));
            }
        }
        for n in 0..wide {
            blocks[n] = vaeseq_u8(blocks[n], self.tweak[KEYS - 2]);
            blocks[n] = veorq_u8(blocks[n], self.tweak[KEYS - 1]);
            store(&mut firsts[n], blocks[n]);
        }
        blocks[0]
    }
}

// --- one pass through the rounds --------------------------------------------------------------------------------

/// Encrypts or decrypts with the tweaks `now`, and returns those of the next pass: of the sector whose first tweak is
/// `after` where this one `ENDS` its sector. They are computed between the rounds, one register in each.
#[inline]
#[target_feature(enable = "aes")]
fn pass<const KEYS: usize, const ENCRYPT: bool, const ENDS: bool>(
    keys: &[uint8x16_t; KEYS],
    data: &mut [u8; STEP],
    now: [uint8x16_t; WIDE],
    after: &[u8; BLOCK],
) -> [uint8x16_t; WIDE] {
    let (data, _) = data.as_chunks_mut::<BLOCK>();
    let keys = in_place(keys);
    let mut next = now;
    let mut blocks = now;
    for n in 0..WIDE {
        blocks[n] = veorq_u8(load(&data[n]), now[n]);
    }
    for round in 0..KEYS - 2 {
        for block in &mut blocks {
            *block = if ENCRYPT {
                vaesmcq_u8(vaeseq_u8(*block, keys[round]))
            } else {
                vaesimcq_u8(vaesdq_u8(*block, keys[round]))
            };
        }
        if round < WIDE {
            next[round] = match round {
                0 if ENDS => load(after),
                0 => times_x(now[WIDE - 1]),
                _ => times_x(next[round - 1]),
            };
        }
    }
    for n in 0..WIDE {
        blocks[n] = if ENCRYPT {
            vaeseq_u8(blocks[n], keys[KEYS - 2])
        } else {
            vaesdq_u8(blocks[n], keys[KEYS - 2])
        };
        let key = veorq_u8(keys[KEYS - 1], now[n]);
        store(&mut data[n], veorq_u8(blocks[n], key));
    }
    next
}

// --- tweaks -----------------------------------------------------------------------------------------------------

/// The numbers of sectors, one in each register.
#[inline]
#[target_feature(enable = "neon")]
fn spread_numbers(numbers: &Numbers) -> [uint8x16_t; WIDE] {
    let mut spread = [vdupq_n_u8(0); WIDE];
    for n in 0..WIDE {
        let low = vcreate_s64((numbers.low(n) & numbers.low_mask()).cast_unsigned());
        let high = vcreate_s64(numbers.high().cast_unsigned());
        spread[n] = vreinterpretq_u8_s64(vcombine_s64(low, high));
        if numbers.reversed() {
            let halves = vrev64q_u8(spread[n]);
            spread[n] = vextq_u8::<8>(halves, halves);
        }
    }
    spread
}

/// The tweaks of a sector's first pass: its first tweak times 1, x, x² and so on.
#[inline]
#[target_feature(enable = "neon")]
fn spread(first: uint8x16_t) -> [uint8x16_t; WIDE] {
    let mut tweaks = [first; WIDE];
    for n in 1..WIDE {
        tweaks[n] = times_x(tweaks[n - 1]);
    }
    tweaks
}

/// Times x, modulo x^128 + x^7 + x^2 + x + 1: both halves doubled, and the bit that each lost added to the other.
#[inline]
#[target_feature(enable = "neon")]
fn times_x(tweak: uint8x16_t) -> uint8x16_t {
    let halves = vreinterpretq_s64_u8(tweak);
    let lost = vshrq_n_s64::<63>(halves);
    let lost = vextq_s64::<1>(lost, lost);
    let reduction = vcombine_s64(vcreate_s64(0x87), vcreate_s64(1));
    let reduced = veorq_s64(vaddq_s64(halves, halves), vandq_s64(lost, reduction));
    vreinterpretq_u8_s64(reduced)
}

// --- the key schedule -------------------------------------------------------------------------------------------

/// The round keys (FIPS 197, section 5.2), as many as `KEYS` says: 11 from a key of 16 bytes, 15 from one of 32.
#[target_feature(enable = "aes")]
fn expand<const KEYS: usize>(key: &[u8]) -> [uint8x16_t; KEYS] {
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
        vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(low), vcreate_u64(high)))
    });
    words.zeroize();
    keys
}

/// Each byte through the S-box. Four times the same word, so that the instruction's shifting of rows moves nothing.
#[inline]
#[target_feature(enable = "aes")]
fn substituted(word: u32) -> u32 {
    let words = vreinterpretq_u8_u32(vdupq_n_u32(word));
    let words = vaeseq_u8(words, vdupq_n_u8(0));
    vgetq_lane_u32::<0>(vreinterpretq_u32_u8(words))
}

/// The round keys of the equivalent inverse cipher (section 5.3.5), in the order in which they are used.
#[target_feature(enable = "aes")]
fn inverse<const KEYS: usize>(keys: &[uint8x16_t; KEYS]) -> [uint8x16_t; KEYS] {
    let mut inverse = *keys;
    inverse.reverse();
    for key in &mut inverse[1..KEYS - 1] {
        *key = vaesimcq_u8(*key);
    }
    inverse
}

// --- memory -----------------------------------------------------------------------------------------------------

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; BLOCK]) -> uint8x16_t {
    // SAFETY: 16 bytes are readable there; they need no alignment.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store(bytes: &mut [u8; BLOCK], block: uint8x16_t) {
    // SAFETY: 16 bytes are writable there; they need no alignment.
    unsafe { vst1q_u8(bytes.as_mut_ptr(), block) }
}
