//! The kernel for VAES on 512-bit registers: four blocks in each register, eight registers at once.

use std::arch::x86_64::*;

use zeroize::Zeroize;

use super::{maker_is_intel, schedule};
use crate::xts::error::XtsError;
use crate::xts::in_place::in_place;
use crate::xts::keyed::{Keyed, OutOfPlace};
use crate::xts::memory::Memory;
use crate::xts::run::{Run, Step};
use crate::xts::tweak::{BLOCK, Numbers, Tweaks};

/// Registers that go through the rounds together, enough to hide the latency of a round.
const WIDE: usize = 8;
/// Blocks in each register.
const LANES: usize = 4;
/// The bytes that one pass through the rounds processes.
const STEP: usize = WIDE * LANES * BLOCK;
/// The number of sectors whose first tweaks are encrypted together.
const SECTORS: usize = WIDE * LANES;
/// The number of sectors whose first tweaks need few registers: 4 KiB in sectors of 512 bytes.
const FEW: usize = 8;

// --- the token -----------------------------------------------------------------------------------

/// Proof that this CPU has the instructions of this kernel. Only [`detect`](Self::detect) makes
/// one.
#[derive(Clone, Copy)]
pub(in crate::xts) struct Token {
    /// Whether tweaks are reduced by multiplications in place of shifts; see [`reduced`].
    multiply: bool,
}

impl Token {
    pub(in crate::xts) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw");
        has.then(|| Self {
            multiply: maker_is_intel(),
        })
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
    encrypt: Rounds<KEYS>,
    decrypt: Rounds<KEYS>,
    tweak: [__m512i; KEYS],
}

/// The round keys of one direction. The last round key is added to all tweaks, so that the last
/// round uses a tweak as its key.
struct Rounds<const KEYS: usize> {
    keys: [__m512i; KEYS],
    /// The sum of the first and the last round key. Added to data and such a tweak, it leaves the
    /// data with the tweak itself and the first round key.
    first: __m512i,
    /// The sum of the last round key and its product with x^8. It turns the product of such a tweak
    /// with x^8 into the tweak eight blocks later.
    by_x8: __m512i,
    /// The same for x^32.
    by_x32: __m512i,
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
            Self::Aes128(Token { multiply: false }, keys) => {
                // SAFETY: the token proves that this CPU has the instructions.
                unsafe { keys.run::<ENCRYPT, false>(tweaks, run) }
            }
            Self::Aes128(Token { multiply: true }, keys) => {
                // SAFETY: as above.
                unsafe { keys.run::<ENCRYPT, true>(tweaks, run) }
            }
            Self::Aes192(Token { multiply: false }, keys) => {
                // SAFETY: as above.
                unsafe { keys.run::<ENCRYPT, false>(tweaks, run) }
            }
            Self::Aes192(Token { multiply: true }, keys) => {
                // SAFETY: as above.
                unsafe { keys.run::<ENCRYPT, true>(tweaks, run) }
            }
            Self::Aes256(Token { multiply: false }, keys) => {
                // SAFETY: as above.
                unsafe { keys.run::<ENCRYPT, false>(tweaks, run) }
            }
            Self::Aes256(Token { multiply: true }, keys) => {
                // SAFETY: as above.
                unsafe { keys.run::<ENCRYPT, true>(tweaks, run) }
            }
        }
    }
}

impl<const KEYS: usize> Drop for Keys<KEYS> {
    fn drop(&mut self) {
        for rounds in [&mut self.encrypt, &mut self.decrypt] {
            rounds.keys.zeroize();
            rounds.first.zeroize();
            rounds.by_x8.zeroize();
            rounds.by_x32.zeroize();
        }
        self.tweak.zeroize();
    }
}

// --- runs of sectors -----------------------------------------------------------------------------

/// The encrypted first tweaks of up to `SECTORS` sectors. The last entry is loaded, but never used.
#[repr(align(64))]
struct Firsts([[u8; BLOCK]; SECTORS + 1]);

impl<const KEYS: usize> Keys<KEYS> {
    #[target_feature(enable = "aes,ssse3,vaes,vpclmulqdq,avx512f,avx512bw")]
    fn new(key: &[u8]) -> Self {
        let (data, tweak) = key.split_at(key.len() / 2);
        let data = schedule::expand::<KEYS>(data);
        let tweak = schedule::expand::<KEYS>(tweak);
        Self {
            encrypt: Rounds::new(&data),
            decrypt: Rounds::new(&schedule::inverse(&data)),
            tweak: tweak.map(|key| _mm512_broadcast_i32x4(key)),
        }
    }

    #[target_feature(enable = "aes,ssse3,vaes,vpclmulqdq,avx512f,avx512bw")]
    fn run<const ENCRYPT: bool, const MULTIPLY: bool>(&self, mut tweaks: Tweaks, mut run: Run<'_>) {
        let mut firsts = Firsts([[0; BLOCK]; SECTORS + 1]);
        let firsts = &mut firsts.0;
        while run.sectors() > 0 {
            let numbers = tweaks.take(run.sectors().min(SECTORS));
            let keys = in_place(self);
            let first = match numbers.count() {
                1 => keys.first_tweak(&numbers),
                2..=FEW => keys.first_tweaks::<{ FEW / LANES }>(&numbers, firsts),
                _ => keys.first_tweaks::<WIDE>(&numbers, firsts),
            };
            let rounds = if ENCRYPT {
                &keys.encrypt
            } else {
                &keys.decrypt
            };
            let mut powers = spread::<KEYS, MULTIPLY>(rounds, first);
            for after in firsts[1..].iter().take(numbers.count()) {
                let Some((steps, last)) = run.next::<STEP>() else {
                    return;
                };
                for step in steps {
                    powers = pass::<KEYS, ENCRYPT, MULTIPLY, false>(rounds, step, powers, after);
                }
                powers = pass::<KEYS, ENCRYPT, MULTIPLY, true>(rounds, last, powers, after);
            }
        }
    }

    /// Encrypts the first tweaks of sectors in `N` registers, and stores them in `firsts`.
    ///
    /// Returns the first of them in every lane, so that it need not be loaded from memory.
    #[inline]
    #[target_feature(enable = "aes,ssse3,vaes,vpclmulqdq,avx512f,avx512bw")]
    fn first_tweaks<const N: usize>(
        &self,
        numbers: &Numbers,
        firsts: &mut [[u8; BLOCK]; SECTORS + 1],
    ) -> __m512i {
        let (firsts, _) = firsts
            .as_flattened_mut()
            .as_chunks_mut::<{ LANES * BLOCK }>();
        let mut blocks = spread_numbers::<N>(numbers);
        for n in 0..N {
            blocks[n] = _mm512_xor_si512(blocks[n], self.tweak[0]);
        }
        for key in &self.tweak[1..KEYS - 1] {
            for n in 0..N {
                blocks[n] = _mm512_aesenc_epi128(blocks[n], *key);
            }
        }
        for n in 0..N {
            blocks[n] = _mm512_aesenclast_epi128(blocks[n], self.tweak[KEYS - 1]);
            store(&mut firsts[n], blocks[n]);
        }
        _mm512_shuffle_i64x2::<0>(blocks[0], blocks[0])
    }

    /// Encrypts the first tweak of a single sector.
    #[inline]
    #[target_feature(enable = "aes,ssse3,vaes,vpclmulqdq,avx512f,avx512bw")]
    fn first_tweak(&self, numbers: &Numbers) -> __m512i {
        let keys = self
            .tweak
            .each_ref()
            .map(|key| _mm512_castsi512_si128(*key));
        let block = schedule::encrypt(&keys, numbers.first());
        _mm512_broadcast_i32x4(block)
    }
}

impl<const KEYS: usize> Rounds<KEYS> {
    #[target_feature(enable = "vpclmulqdq,avx512f,avx512bw")]
    fn new(keys: &[__m128i; KEYS]) -> Self {
        let keys = keys.map(|key| _mm512_broadcast_i32x4(key));
        let (first, last) = (keys[0], keys[KEYS - 1]);
        Self {
            keys,
            first: _mm512_xor_si512(first, last),
            by_x8: times_x8::<true>(last, last),
            by_x32: times_x32::<true>(last, last),
        }
    }
}

// --- one pass through the rounds -----------------------------------------------------------------

/// Encrypts or decrypts one step with the tweaks `now`, and returns the tweaks of the next pass.
///
/// Where this pass `ENDS` its sector, they are those of the sector whose first tweak is `after`.
/// They are computed between the rounds, one register in each round.
#[inline]
#[target_feature(enable = "aes,ssse3,vaes,vpclmulqdq,avx512f,avx512bw")]
fn pass<const KEYS: usize, const ENCRYPT: bool, const MULTIPLY: bool, const ENDS: bool>(
    rounds: &Rounds<KEYS>,
    step: Step<'_, STEP>,
    now: [__m512i; WIDE],
    after: &[u8; BLOCK],
) -> [__m512i; WIDE] {
    let rounds = in_place(rounds);
    let keys = &rounds.keys;
    let mut next = now;
    let mut blocks = now;
    unrolled!(n in 0 1 2 3 4 5 6 7 {
        blocks[n] = xor3(take::<n>(step), now[n], rounds.first);
    });
    unrolled!(round in 1 2 3 4 5 6 7 8 9 10 11 12 13 {
        if round < KEYS - 1 {
            for block in &mut blocks {
                *block = if ENCRYPT {
                    _mm512_aesenc_epi128(*block, keys[round])
                } else {
                    _mm512_aesdec_epi128(*block, keys[round])
                };
            }
            let n = (round - 1).min(WIDE - 1);
            if round <= WIDE {
                next[n] = if !ENDS {
                    times_x32::<MULTIPLY>(now[n], rounds.by_x32)
                } else if n < SPREAD {
                    powers::<MULTIPLY>(broadcast(after), n, keys[KEYS - 1])
                } else {
                    times_x8::<MULTIPLY>(next[n - SPREAD], rounds.by_x8)
                };
            }
            barrier(&mut blocks, &mut next, n);
        }
    });
    unrolled!(n in 0 1 2 3 4 5 6 7 {
        blocks[n] = if ENCRYPT {
            _mm512_aesenclast_epi128(blocks[n], now[n])
        } else {
            _mm512_aesdeclast_epi128(blocks[n], now[n])
        };
        put::<n>(step, blocks[n]);
    });
    next
}

/// Keeps the compiler from moving the tweak computations out from between the rounds.
#[inline]
#[target_feature(enable = "avx512f")]
fn barrier(blocks: &mut [__m512i; WIDE], tweaks: &mut [__m512i; WIDE], n: usize) {
    // SAFETY: the block contains no instructions.
    unsafe {
        std::arch::asm!(
            "/* {} {} {} {} {} {} {} {} {} */",
            inout(zmm_reg) blocks[0],
            inout(zmm_reg) blocks[1],
            inout(zmm_reg) blocks[2],
            inout(zmm_reg) blocks[3],
            inout(zmm_reg) blocks[4],
            inout(zmm_reg) blocks[5],
            inout(zmm_reg) blocks[6],
            inout(zmm_reg) blocks[7],
            inout(zmm_reg) tweaks[n],
            options(nostack, preserves_flags),
        );
    }
}

// --- tweaks --------------------------------------------------------------------------------------

/// The number of registers that eight powers of x fill.
const SPREAD: usize = 8 / LANES;

/// Selects the low half of each lane.
const LOW_HALVES: __mmask8 = 0b0101_0101;

/// The numbers of consecutive sectors, one in each lane.
#[inline]
#[target_feature(enable = "vpclmulqdq,avx512f,avx512bw")]
fn spread_numbers<const N: usize>(numbers: &Numbers) -> [__m512i; N] {
    let [a, b, c, d] = [0, 1, 2, 3].map(|n| numbers.low(n));
    let high = numbers.high();
    let mut number = _mm512_setr_epi64(a, high, b, high, c, high, d, high);
    let step = _mm512_maskz_set1_epi64(LOW_HALVES, numbers.low(LANES).wrapping_sub(a));
    let mask = _mm512_mask_set1_epi64(_mm512_set1_epi64(-1), LOW_HALVES, numbers.low_mask());
    let mut spread = [number; N];
    for n in 0..N {
        spread[n] = _mm512_and_si512(number, mask);
        if numbers.reversed() {
            spread[n] = _mm512_shuffle_epi8(spread[n], reversing());
        }
        number = _mm512_add_epi64(number, step);
    }
    spread
}

/// The shuffle that reverses the bytes of each lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn reversing() -> __m512i {
    _mm512_broadcast_i32x4(_mm_setr_epi8(
        15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0,
    ))
}

/// The tweaks of the first pass over a sector: its first tweak times 1, x, x² and so on.
#[inline]
#[target_feature(enable = "vpclmulqdq,avx512f,avx512bw")]
fn spread<const KEYS: usize, const MULTIPLY: bool>(
    rounds: &Rounds<KEYS>,
    first: __m512i,
) -> [__m512i; WIDE] {
    let mut tweaks = [first; WIDE];
    for n in 0..WIDE {
        tweaks[n] = if n < SPREAD {
            powers::<MULTIPLY>(first, n, rounds.keys[KEYS - 1])
        } else {
            times_x8::<MULTIPLY>(tweaks[n - SPREAD], rounds.by_x8)
        };
    }
    tweaks
}

/// The tweaks in register `n` of the first pass over a sector, plus `key`. In each lane, `first` is
/// multiplied by x to the power of the number of that lane. See [`reduced`] for `MULTIPLY`.
#[inline]
#[target_feature(enable = "vpclmulqdq,avx512f,avx512bw")]
fn powers<const MULTIPLY: bool>(first: __m512i, n: usize, key: __m512i) -> __m512i {
    let up = [0, 1, 2, 3].map(|lane| n * LANES + lane);
    if MULTIPLY {
        let [a, b, c, d] = up.map(|up| 1 << up);
        let power = _mm512_setr_epi64(a, 0, b, 0, c, 0, d, 0);
        let low = _mm512_clmulepi64_epi128::<0x00>(first, power);
        let high = _mm512_clmulepi64_epi128::<0x01>(first, power);
        let reduced = _mm512_clmulepi64_epi128::<0x01>(high, low_halves(0x87));
        let shifted = xor3(low, _mm512_bslli_epi128::<8>(high), key);
        return _mm512_xor_si512(shifted, reduced);
    }
    let [a, b, c, d] = up.map(|up| up as i64);
    let up = _mm512_setr_epi64(a, a, b, b, c, c, d, d);
    let down = _mm512_sub_epi64(_mm512_set1_epi64(64), up);
    let carried = _mm512_srlv_epi64(first, down);
    let shifted = xor3(
        _mm512_sllv_epi64(first, up),
        _mm512_bslli_epi128::<8>(carried),
        key,
    );
    let out = _mm512_bsrli_epi128::<8>(carried);
    reduced::<false>(_mm512_xor_si512(shifted, out), out, _mm512_setzero_si512())
}

/// Multiplies each tweak by x^8, and adds `key`.
#[inline]
#[target_feature(enable = "vpclmulqdq,avx512f,avx512bw")]
fn times_x8<const MULTIPLY: bool>(tweaks: __m512i, key: __m512i) -> __m512i {
    let rotated = _mm512_alignr_epi8::<15>(tweaks, tweaks);
    reduced::<MULTIPLY>(rotated, _mm512_bsrli_epi128::<15>(tweaks), key)
}

/// Multiplies each tweak by x^32, and adds `key`.
#[inline]
#[target_feature(enable = "vpclmulqdq,avx512f,avx512bw")]
fn times_x32<const MULTIPLY: bool>(tweaks: __m512i, key: __m512i) -> __m512i {
    let rotated = _mm512_shuffle_epi32::<0b10_01_00_11>(tweaks);
    reduced::<MULTIPLY>(rotated, _mm512_bsrli_epi128::<12>(tweaks), key)
}

/// Reduces a rotated product modulo x^128 + x^7 + x^2 + x + 1, and adds `key`.
///
/// The rotation has already added the bits that went `out` at the top, times 1. This adds them
/// times x^7 + x^2 + x. On Intel's CPUs a shift takes the place of an AES instruction in the
/// pipeline, and on AMD's a carry-less multiplication does, so `MULTIPLY` chooses one.
#[inline]
#[target_feature(enable = "vpclmulqdq,avx512f,avx512bw")]
fn reduced<const MULTIPLY: bool>(rotated: __m512i, out: __m512i, key: __m512i) -> __m512i {
    if MULTIPLY {
        let product = _mm512_clmulepi64_epi128::<0x00>(out, low_halves(0x86));
        return xor3(rotated, product, key);
    }
    let by_x = _mm512_add_epi64(out, out);
    let (by_x2, by_x7) = (_mm512_slli_epi64::<2>(out), _mm512_slli_epi64::<7>(out));
    xor3(xor3(rotated, by_x, by_x2), by_x7, key)
}

/// The number in the low half of each lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn low_halves(number: i64) -> __m512i {
    _mm512_maskz_set1_epi64(LOW_HALVES, number)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0b1001_0110>(a, b, c)
}

// --- memory --------------------------------------------------------------------------------------

/// Reads register `N` of a step. This is an instruction and no load of the compiler, which could
/// repeat it: others may write that memory at the same time.
#[inline]
#[target_feature(enable = "avx512f")]
fn take<const N: usize>(step: Step<'_, STEP>) -> __m512i {
    const { assert!(N < WIDE) };
    let blocks;
    // SAFETY: a step has the bytes of all registers to read. The instruction needs no alignment.
    unsafe {
        std::arch::asm!(
            "vmovdqu64 {blocks}, [{from} + {offset}]",
            blocks = out(zmm_reg) blocks,
            from = in(reg) step.from(),
            offset = const N * LANES * BLOCK,
            options(readonly, nostack, preserves_flags),
        );
    }
    blocks
}

/// Writes register `N` of a step.
#[inline]
#[target_feature(enable = "avx512f")]
fn put<const N: usize>(step: Step<'_, STEP>, blocks: __m512i) {
    const { assert!(N < WIDE) };
    // SAFETY: a step has the bytes of all registers to write. The instruction needs no alignment.
    unsafe {
        std::arch::asm!(
            "vmovdqu64 [{to} + {offset}], {blocks}",
            blocks = in(zmm_reg) blocks,
            to = in(reg) step.to(),
            offset = const N * LANES * BLOCK,
            options(nostack, preserves_flags),
        );
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(bytes: &mut [u8; LANES * BLOCK], blocks: __m512i) {
    // SAFETY: the reference makes that many bytes writable. The instruction needs no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), blocks) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(block: &[u8; BLOCK]) -> __m512i {
    // SAFETY: the reference makes 16 bytes readable. The instruction needs no alignment.
    let block = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
    _mm512_broadcast_i32x4(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xts::{Heap, TweakForm};

    /// Both ways of reduction, of which detection chooses one by the CPU's maker, give the same
    /// bytes.
    #[test]
    fn shifts_and_multiplications_give_the_same() {
        if Token::detect().is_none() {
            return;
        }
        for key_size in [32, 64] {
            let key: Vec<u8> = (0..=255).rev().step_by(3).take(key_size).collect();
            let tweaks = Tweaks::new(u128::MAX / 7, 1, TweakForm::Whole);
            let [shifted, multiplied] = [false, true].map(|multiply| {
                let xts = Xts::<Heap>::new::<XtsError>(Token { multiply }, &key).unwrap();
                let mut data = vec![0x5a; 40 * 1024];
                Keyed::encrypt(&xts, tweaks, 1024, &mut data);
                let mut back = data.clone();
                Keyed::decrypt(&xts, tweaks, 1024, &mut back);
                assert!(back.iter().all(|&byte| byte == 0x5a));
                data
            });
            assert!(shifted == multiplied);
        }
    }
}
