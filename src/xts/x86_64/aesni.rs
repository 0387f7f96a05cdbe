//! The kernel for AES-NI: one block in each register, eight blocks at once.

use std::arch::x86_64::*;

use zeroize::Zeroize;

use super::schedule;
use crate::xts::error::XtsError;
use crate::xts::in_place::in_place;
use crate::xts::keyed::{Keyed, OutOfPlace};
use crate::xts::memory::Memory;
use crate::xts::run::{Run, Step};
use crate::xts::tweak::{BLOCK, Numbers, Tweaks};

/// Registers that go through the rounds together, enough to hide the latency of a round.
const WIDE: usize = 8;
/// Blocks in each register.
const LANES: usize = 1;
/// The bytes that one pass through the rounds processes.
const STEP: usize = WIDE * LANES * BLOCK;
/// The number of sectors whose first tweaks are encrypted together.
const SECTORS: usize = WIDE * LANES;

// --- the token -----------------------------------------------------------------------------------

/// Proof that this CPU has the instructions of this kernel. Only [`detect`](Self::detect) makes
/// one.
#[derive(Clone, Copy)]
pub(in crate::xts) struct Token(());

impl Token {
    pub(in crate::xts) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("aes") && is_x86_feature_detected!("ssse3");
        has.then_some(Self(()))
    }
}

// --- keys and dispatch ---------------------------------------------------------------------------

/// The key schedules, by key size.
pub(in crate::xts) enum Xts<M: Memory> {
    Aes128(Token, M::Held<Keys<11>>),
    Aes192(Token, M::Held<Keys<13>>),
    Aes256(Token, M::Held<Keys<15>>),
}

/// The round keys. Each one is repeated in every lane of its register.
pub(in crate::xts) struct Keys<const KEYS: usize> {
    encrypt: [__m128i; KEYS],
    decrypt: [__m128i; KEYS],
    tweak: [__m128i; KEYS],
}

impl<M: Memory> Xts<M> {
    pub(in crate::xts) fn new<E>(token: Token, key: &[u8]) -> Result<Self, E>
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
        self.encrypt.zeroize();
        self.decrypt.zeroize();
        self.tweak.zeroize();
    }
}

// --- runs of sectors -----------------------------------------------------------------------------

/// The encrypted first tweaks of up to `SECTORS` sectors. The last entry is loaded, but never used.
#[repr(align(64))]
struct Firsts([[u8; BLOCK]; SECTORS + 1]);

impl<const KEYS: usize> Keys<KEYS> {
    #[target_feature(enable = "aes,ssse3")]
    fn new(key: &[u8]) -> Self {
        let (data, tweak) = key.split_at(key.len() / 2);
        let data = schedule::expand::<KEYS>(data);
        Self {
            encrypt: data,
            decrypt: schedule::inverse(&data),
            tweak: schedule::expand::<KEYS>(tweak),
        }
    }

    #[target_feature(enable = "aes,ssse3")]
    fn run<const ENCRYPT: bool>(&self, mut tweaks: Tweaks, mut run: Run<'_>) {
        let mut firsts = Firsts([[0; BLOCK]; SECTORS + 1]);
        let firsts = &mut firsts.0;
        while run.sectors() > 0 {
            let numbers = tweaks.take(run.sectors().min(SECTORS));
            let schedules = in_place(self);
            let first = schedules.first_tweaks(&numbers, firsts);
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
    /// Returns the first of them in every lane, so that it need not be loaded from memory.
    #[inline]
    #[target_feature(enable = "aes,ssse3")]
    fn first_tweaks(&self, numbers: &Numbers, firsts: &mut [[u8; BLOCK]; SECTORS + 1]) -> __m128i {
        if numbers.count() == 1 {
            return self.first_tweak(numbers);
        }
        let (firsts, _) = firsts
            .as_flattened_mut()
            .as_chunks_mut::<{ LANES * BLOCK }>();
        let mut blocks = spread_numbers(numbers);
        for n in 0..WIDE {
            blocks[n] = _mm_xor_si128(blocks[n], self.tweak[0]);
        }
        for key in &self.tweak[1..KEYS - 1] {
            for n in 0..WIDE {
                blocks[n] = _mm_aesenc_si128(blocks[n], *key);
            }
        }
        for n in 0..WIDE {
            blocks[n] = _mm_aesenclast_si128(blocks[n], self.tweak[KEYS - 1]);
            store(&mut firsts[n], blocks[n]);
        }
        blocks[0]
    }

    /// Encrypts the first tweak of a single sector.
    #[inline]
    #[target_feature(enable = "aes,ssse3")]
    fn first_tweak(&self, numbers: &Numbers) -> __m128i {
        schedule::encrypt(&self.tweak, numbers.first())
    }
}

// --- one pass through the rounds -----------------------------------------------------------------

/// Encrypts or decrypts one step with the tweaks `now`, and returns the tweaks of the next pass.
///
/// Where this pass `ENDS` its sector, they are those of the sector whose first tweak is `after`.
/// They are computed between the rounds, one register in each round.
#[inline]
#[target_feature(enable = "aes,ssse3")]
fn pass<const KEYS: usize, const ENCRYPT: bool, const ENDS: bool>(
    keys: &[__m128i; KEYS],
    step: Step<'_, STEP>,
    now: [__m128i; WIDE],
    after: &[u8; BLOCK],
) -> [__m128i; WIDE] {
    let keys = in_place(keys);
    let held = in_place(&now);
    let mut next = now;
    let mut blocks = now;
    unrolled!(n in 0 1 2 3 4 5 6 7 {
        blocks[n] = xor3(take::<n>(step), now[n], keys[0]);
    });
    unrolled!(round in 1 2 3 4 5 6 7 8 9 10 11 12 13 {
        if round < KEYS - 1 {
            for block in &mut blocks {
                *block = if ENCRYPT {
                    _mm_aesenc_si128(*block, keys[round])
                } else {
                    _mm_aesdec_si128(*block, keys[round])
                };
            }
            let n = (round - 1).min(WIDE - 1);
            if round <= WIDE {
                next[n] = if n > 0 {
                    times_x(next[n - 1])
                } else if ENDS {
                    load(after)
                } else {
                    times_x(now[WIDE - 1])
                };
            }
            barrier(&mut blocks, &mut next, n);
        }
    });
    unrolled!(n in 0 1 2 3 4 5 6 7 {
        let key = _mm_xor_si128(keys[KEYS - 1], held[n]);
        blocks[n] = if ENCRYPT {
            _mm_aesenclast_si128(blocks[n], key)
        } else {
            _mm_aesdeclast_si128(blocks[n], key)
        };
        put::<n>(step, blocks[n]);
    });
    next
}

/// Keeps the compiler from moving the tweak computations out from between the rounds.
#[inline]
#[target_feature(enable = "ssse3")]
fn barrier(blocks: &mut [__m128i; WIDE], tweaks: &mut [__m128i; WIDE], n: usize) {
    // SAFETY: the block contains no instructions.
    unsafe {
        std::arch::asm!(
            "/* {} {} {} {} {} {} {} {} {} */",
            inout(xmm_reg) blocks[0],
            inout(xmm_reg) blocks[1],
            inout(xmm_reg) blocks[2],
            inout(xmm_reg) blocks[3],
            inout(xmm_reg) blocks[4],
            inout(xmm_reg) blocks[5],
            inout(xmm_reg) blocks[6],
            inout(xmm_reg) blocks[7],
            inout(xmm_reg) tweaks[n],
            options(nostack, preserves_flags),
        );
    }
}

// --- tweaks --------------------------------------------------------------------------------------

/// The numbers of consecutive sectors, one in each lane.
#[inline]
#[target_feature(enable = "ssse3")]
fn spread_numbers(numbers: &Numbers) -> [__m128i; WIDE] {
    let a = numbers.low(0);
    let mut number = _mm_set_epi64x(numbers.high(), a);
    let step = _mm_set_epi64x(0, numbers.low(LANES).wrapping_sub(a));
    let mask = _mm_set_epi64x(-1, numbers.low_mask());
    let mut spread = [number; WIDE];
    for n in 0..WIDE {
        spread[n] = _mm_and_si128(number, mask);
        if numbers.reversed() {
            spread[n] = _mm_shuffle_epi8(spread[n], reversing());
        }
        number = _mm_add_epi64(number, step);
    }
    spread
}

/// The shuffle that reverses the bytes of each lane.
#[inline]
#[target_feature(enable = "sse2")]
fn reversing() -> __m128i {
    _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
}

/// The tweaks of the first pass over a sector: its first tweak times 1, x, x² and so on.
#[inline]
#[target_feature(enable = "ssse3")]
fn spread(first: __m128i) -> [__m128i; WIDE] {
    let mut tweaks = [first; WIDE];
    for n in 1..WIDE {
        tweaks[n] = times_x(tweaks[n - 1]);
    }
    tweaks
}

/// Multiplies by x, modulo x^128 + x^7 + x^2 + x + 1: both halves are doubled, and the bit that
/// each half loses is added to the other.
#[inline]
#[target_feature(enable = "ssse3")]
fn times_x(tweak: __m128i) -> __m128i {
    let signs = _mm_srai_epi32::<31>(_mm_shuffle_epi32::<0b00_01_00_11>(tweak));
    let lost = _mm_and_si128(signs, _mm_setr_epi32(0x87, 0, 1, 0));
    _mm_xor_si128(_mm_add_epi64(tweak, tweak), lost)
}

#[inline]
#[target_feature(enable = "ssse3")]
fn xor3(a: __m128i, b: __m128i, c: __m128i) -> __m128i {
    _mm_xor_si128(_mm_xor_si128(a, b), c)
}

// --- memory --------------------------------------------------------------------------------------

/// Reads register `N` of a step. This is an instruction and no load of the compiler, which could
/// repeat it: others may write that memory at the same time.
#[inline]
#[target_feature(enable = "ssse3")]
fn take<const N: usize>(step: Step<'_, STEP>) -> __m128i {
    const { assert!(N < WIDE) };
    let blocks;
    // SAFETY: a step has the bytes of all registers to read. The instruction needs no alignment.
    unsafe {
        std::arch::asm!(
            "movdqu {blocks}, [{from} + {offset}]",
            blocks = out(xmm_reg) blocks,
            from = in(reg) step.from(),
            offset = const N * LANES * BLOCK,
            options(readonly, nostack, preserves_flags),
        );
    }
    blocks
}

/// Writes register `N` of a step.
#[inline]
#[target_feature(enable = "ssse3")]
fn put<const N: usize>(step: Step<'_, STEP>, blocks: __m128i) {
    const { assert!(N < WIDE) };
    // SAFETY: a step has the bytes of all registers to write. The instruction needs no alignment.
    unsafe {
        std::arch::asm!(
            "movdqu [{to} + {offset}], {blocks}",
            blocks = in(xmm_reg) blocks,
            to = in(reg) step.to(),
            offset = const N * LANES * BLOCK,
            options(nostack, preserves_flags),
        );
    }
}

#[inline]
#[target_feature(enable = "ssse3")]
fn load(bytes: &[u8; LANES * BLOCK]) -> __m128i {
    // SAFETY: the reference makes that many bytes readable. The instruction needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "ssse3")]
fn store(bytes: &mut [u8; LANES * BLOCK], blocks: __m128i) {
    // SAFETY: the reference makes that many bytes writable. The instruction needs no alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), blocks) }
}
