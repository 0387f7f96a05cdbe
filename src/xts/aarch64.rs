//! The kernel for the AES extension of ARMv8: one block in each register, eight blocks at once.
//!
//! The file has the same sections as the kernels for x86-64. The difference is that an instruction
//! of ARMv8 adds its round key at its start.

#![allow(unsafe_code)] // loads, stores, and calls of functions for a detected CPU
#![allow(clippy::needless_range_loop)] // one index for several arrays

use std::arch::aarch64::*;

use zeroize::Zeroize;

use super::error::XtsError;
use super::in_place::in_place;
use super::keyed::{Keyed, OutOfPlace};
use super::memory::Memory;
use super::run::{Run, Step};
use super::tweak::{BLOCK, Numbers, Tweaks};

/// Registers that go through the rounds together, enough to hide the latency of a round.
const WIDE: usize = 8;
/// The bytes that one pass through the rounds processes.
const STEP: usize = WIDE * BLOCK;
/// The number of sectors whose first tweaks are encrypted together.
const SECTORS: usize = WIDE;

// --- the token -----------------------------------------------------------------------------------

/// Proof that this CPU has the instructions of this kernel. Only [`detect`](Self::detect) makes
/// one.
#[derive(Clone, Copy)]
pub(super) struct Token(());

impl Token {
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("aes").then_some(Self(()))
    }
}

// --- keys and dispatch ---------------------------------------------------------------------------

/// The key schedules, by key size.
pub(super) enum Xts<M: Memory> {
    Aes128(Token, M::Held<Keys<11>>),
    Aes192(Token, M::Held<Keys<13>>),
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
            48 => Ok(Self::Aes192(token, M::hold(unsafe { Keys::new(key) })?)),
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
        self.run::<true>(tweaks, Run::in_place(data, sector_size));
    }

    fn decrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        self.run::<false>(tweaks, Run::in_place(data, sector_size));
    }

    fn out_of_place(&self) -> Option<&dyn OutOfPlace> {
        Some(self)
    }
}

impl<M: Memory> OutOfPlace for Xts<M> {
    fn encrypt(&self, tweaks: Tweaks, run: Run<'_>) {
        self.run::<true>(tweaks, run);
    }

    fn decrypt(&self, tweaks: Tweaks, run: Run<'_>) {
        self.run::<false>(tweaks, run);
    }
}

impl<M: Memory> Xts<M> {
    fn run<const ENCRYPT: bool>(&self, tweaks: Tweaks, run: Run<'_>) {
        match self {
            // SAFETY: the token proves that this CPU has the instructions.
            Self::Aes128(_, keys) => unsafe { keys.run::<ENCRYPT>(tweaks, run) },
            // SAFETY: as above.
            Self::Aes192(_, keys) => unsafe { keys.run::<ENCRYPT>(tweaks, run) },
            // SAFETY: as above.
            Self::Aes256(_, keys) => unsafe { keys.run::<ENCRYPT>(tweaks, run) },
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

// --- runs of sectors -----------------------------------------------------------------------------

/// The encrypted first tweaks of up to `SECTORS` sectors. The last entry is loaded, but never used.
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
    fn run<const ENCRYPT: bool>(&self, mut tweaks: Tweaks, mut run: Run<'_>) {
        let mut firsts: Firsts = [[0; BLOCK]; SECTORS + 1];
        while run.sectors() > 0 {
            let numbers = tweaks.take(run.sectors().min(SECTORS));
            let schedules = in_place(self);
            let first = schedules.first_tweaks(&numbers, &mut firsts);
            let keys = if ENCRYPT {
                &schedules.encrypt
            } else {
                &schedules.decrypt
            };
            let mut powers = spread(first);
            for after in firsts[1..].iter().take(numbers.count()) {
                let Some((steps, last)) = run.next::<STEP>() else {
                    return;
                };
                for step in steps {
                    powers = pass::<KEYS, ENCRYPT, false>(keys, step, powers, after);
                }
                powers = pass::<KEYS, ENCRYPT, true>(keys, last, powers, after);
            }
        }
    }

    /// Encrypts the first tweaks of up to `SECTORS` sectors, and stores them in `firsts`.
    ///
    /// Returns the first of them, so that it need not be loaded from memory.
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

// --- one pass through the rounds -----------------------------------------------------------------

/// Encrypts or decrypts one step with the tweaks `now`, and returns the tweaks of the next pass.
///
/// Where this pass `ENDS` its sector, they are those of the sector whose first tweak is `after`.
/// They are computed between the rounds, one register in each round.
#[inline]
#[target_feature(enable = "aes")]
fn pass<const KEYS: usize, const ENCRYPT: bool, const ENDS: bool>(
    keys: &[uint8x16_t; KEYS],
    step: Step<'_, STEP>,
    now: [uint8x16_t; WIDE],
    after: &[u8; BLOCK],
) -> [uint8x16_t; WIDE] {
    let mut blocks = load_step(step);
    let keys = in_place(keys);
    let mut next = now;
    for n in 0..WIDE {
        blocks[n] = veorq_u8(blocks[n], now[n]);
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
        blocks[n] = veorq_u8(blocks[n], key);
    }
    store_step(step, &blocks);
    next
}

// --- tweaks --------------------------------------------------------------------------------------

/// The numbers of consecutive sectors, one in each register.
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

/// The tweaks of the first pass over a sector: its first tweak times 1, x, x² and so on.
#[inline]
#[target_feature(enable = "neon")]
fn spread(first: uint8x16_t) -> [uint8x16_t; WIDE] {
    let mut tweaks = [first; WIDE];
    for n in 1..WIDE {
        tweaks[n] = times_x(tweaks[n - 1]);
    }
    tweaks
}

/// Multiplies by x, modulo x^128 + x^7 + x^2 + x + 1: both halves are doubled, and the bit that
/// each half loses is added to the other.
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

// --- the key schedule ----------------------------------------------------------------------------

/// Expands a key to its `KEYS` round keys (FIPS 197, section 5.2): 11 from 16 bytes, 13 from 24,
/// 15 from 32.
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

/// Applies the S-box to each byte of `word`. All four words of the register are the same, so that
/// the instruction's ShiftRows step changes nothing.
#[inline]
#[target_feature(enable = "aes")]
fn substituted(word: u32) -> u32 {
    let words = vreinterpretq_u8_u32(vdupq_n_u32(word));
    let words = vaeseq_u8(words, vdupq_n_u8(0));
    vgetq_lane_u32::<0>(vreinterpretq_u32_u8(words))
}

/// The round keys of the equivalent inverse cipher (FIPS 197, section 5.3.5), in order of use.
#[target_feature(enable = "aes")]
fn inverse<const KEYS: usize>(keys: &[uint8x16_t; KEYS]) -> [uint8x16_t; KEYS] {
    let mut inverse = *keys;
    inverse.reverse();
    for key in &mut inverse[1..KEYS - 1] {
        *key = vaesimcq_u8(*key);
    }
    inverse
}

// --- memory --------------------------------------------------------------------------------------

/// Reads each byte of a step once. These are instructions and no loads of the compiler, since
/// others may write that memory at the same time.
#[inline]
#[target_feature(enable = "neon")]
fn load_step(step: Step<'_, STEP>) -> [uint8x16_t; WIDE] {
    let mut blocks = [vdupq_n_u8(0); WIDE];
    // SAFETY: a step has that many bytes that may be read. The instruction needs no alignment.
    unsafe {
        std::arch::asm!(
            "ldp {a:q}, {b:q}, [{from}]",
            "ldp {c:q}, {d:q}, [{from}, #32]",
            "ldp {e:q}, {f:q}, [{from}, #64]",
            "ldp {g:q}, {h:q}, [{from}, #96]",
            from = in(reg) step.from(),
            a = out(vreg) blocks[0],
            b = out(vreg) blocks[1],
            c = out(vreg) blocks[2],
            d = out(vreg) blocks[3],
            e = out(vreg) blocks[4],
            f = out(vreg) blocks[5],
            g = out(vreg) blocks[6],
            h = out(vreg) blocks[7],
            options(readonly, nostack, preserves_flags),
        );
    }
    blocks
}

/// Writes each byte of a step once.
#[inline]
#[target_feature(enable = "neon")]
fn store_step(step: Step<'_, STEP>, blocks: &[uint8x16_t; WIDE]) {
    // SAFETY: a step has that many bytes that may be written. The instruction needs no alignment.
    unsafe {
        std::arch::asm!(
            "stp {a:q}, {b:q}, [{to}]",
            "stp {c:q}, {d:q}, [{to}, #32]",
            "stp {e:q}, {f:q}, [{to}, #64]",
            "stp {g:q}, {h:q}, [{to}, #96]",
            to = in(reg) step.to(),
            a = in(vreg) blocks[0],
            b = in(vreg) blocks[1],
            c = in(vreg) blocks[2],
            d = in(vreg) blocks[3],
            e = in(vreg) blocks[4],
            f = in(vreg) blocks[5],
            g = in(vreg) blocks[6],
            h = in(vreg) blocks[7],
            options(nostack, preserves_flags),
        );
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; BLOCK]) -> uint8x16_t {
    // SAFETY: the reference makes 16 bytes readable. The instruction needs no alignment.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store(bytes: &mut [u8; BLOCK], block: uint8x16_t) {
    // SAFETY: the reference makes 16 bytes writable. The instruction needs no alignment.
    unsafe { vst1q_u8(bytes.as_mut_ptr(), block) }
}
