//! Serpent ("Serpent: A Proposal for the Advanced Encryption Standard", Anderson, Biham and
//! Knudsen, 1998), in its bit-slice form: a register has a word of each of eight blocks, or of 16
//! on CPUs with AVX-512, which also rotate words and combine three operands in one instruction.

use std::arch::x86_64::*;

use zeroize::Zeroize;

use super::registers::{put_words, put_words_of_16, words_of, words_of_16};
use super::{Blocks, Token, Token512, Wide};

const ROUNDS: usize = 32;

pub(in crate::crypt) struct Serpent {
    token: Token,
    token512: Option<Token512>,
    keys: [[u32; 4]; ROUNDS + 1],
}

// --- S-boxes (section 3) -------------------------------------------------------------------------

const S: [[u8; 16]; 8] = [
    [3, 8, 15, 1, 10, 6, 5, 11, 14, 13, 4, 2, 7, 0, 9, 12],
    [15, 12, 2, 7, 9, 0, 5, 10, 1, 11, 14, 8, 6, 13, 3, 4],
    [8, 6, 7, 9, 3, 12, 10, 15, 13, 1, 14, 4, 0, 11, 5, 2],
    [0, 15, 11, 8, 12, 9, 6, 3, 13, 1, 2, 4, 10, 7, 5, 14],
    [1, 15, 8, 3, 12, 0, 11, 6, 2, 5, 4, 10, 9, 14, 7, 13],
    [15, 5, 2, 11, 4, 10, 9, 12, 0, 3, 14, 8, 13, 6, 7, 1],
    [7, 2, 12, 5, 8, 4, 6, 11, 14, 9, 1, 15, 13, 3, 10, 0],
    [1, 13, 15, 0, 14, 8, 2, 11, 7, 4, 12, 10, 9, 3, 5, 6],
];

/// An S-box as sums of products of its input bits.
#[derive(Clone, Copy)]
struct Sums {
    /// Values that several outputs have in common, each the sum of two earlier values.
    shared: [[usize; 2]; SHARED],
    /// The values whose sum is each output bit. Value `m` below 16 is the product of the input bits
    /// in `m`, of which product 0 is 1. Then there are those that are shared.
    outputs: [u32; 4],
}

/// The number of values that are shared.
const SHARED: usize = 6;

impl Sums {
    const fn of(table: [u8; 16]) -> Self {
        let mut sums = Self {
            shared: [[0; 2]; SHARED],
            outputs: [0; 4],
        };
        let mut bit = 0;
        while bit < 4 {
            let mut product = 0;
            while product < 16 {
                // The product counts as often as inputs below it have the output 1.
                let (mut count, mut input) = (0, 0);
                while input < 16 {
                    if input & product == input {
                        count ^= table[input] as u32 >> bit & 1;
                    }
                    input += 1;
                }
                sums.outputs[bit] |= count << product;
                product += 1;
            }
            bit += 1;
        }
        let mut n = 0;
        while n < SHARED {
            sums.share(n);
            n += 1;
        }
        sums
    }

    /// Makes the pair of values that most outputs have a shared value.
    const fn share(&mut self, n: usize) {
        let (mut most, mut best, mut one) = (1, [0; 2], 1);
        while one < 16 + n {
            let mut other = one + 1;
            while other < 16 + n {
                let both = 1 << one | 1 << other;
                let (mut count, mut bit) = (0, 0);
                while bit < 4 {
                    count += (self.outputs[bit] & both == both) as u32;
                    bit += 1;
                }
                if count > most {
                    (most, best) = (count, [one, other]);
                }
                other += 1;
            }
            one += 1;
        }
        let mut bit = 0;
        while bit < 4 && most > 1 {
            let both = 1 << best[0] | 1 << best[1];
            if self.outputs[bit] & both == both {
                self.outputs[bit] = self.outputs[bit] & !both | 1 << (16 + n);
            }
            bit += 1;
        }
        self.shared[n] = best;
    }
}

const fn inverse(table: [u8; 16]) -> [u8; 16] {
    let mut inverse = [0; 16];
    let (mut n, mut bits) = (0, 0);
    while n < 16 {
        inverse[table[n] as usize] = bits;
        (n, bits) = (n + 1, bits + 1);
    }
    inverse
}

const SUMS: [Sums; 8] = {
    let mut all = [Sums::of([0; 16]); 8];
    let mut n = 0;
    while n < 8 {
        all[n] = Sums::of(S[n]);
        n += 1;
    }
    all
};

const INVERSE_SUMS: [Sums; 8] = {
    let mut all = [Sums::of([0; 16]); 8];
    let mut n = 0;
    while n < 8 {
        all[n] = Sums::of(inverse(S[n]));
        n += 1;
    }
    all
};

/// Bits of many inputs of an S-box.
trait Bits: Copy {
    fn xor(self, other: Self) -> Self;
    fn and(self, other: Self) -> Self;
    fn not(self) -> Self;
}

impl Bits for u32 {
    fn xor(self, other: Self) -> Self {
        self ^ other
    }
    fn and(self, other: Self) -> Self {
        self & other
    }
    fn not(self) -> Self {
        !self
    }
}

/// The caller runs on a CPU with AVX2, since it has such a value.
impl Bits for __m256i {
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_xor_si256(self, other) }
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_and_si256(self, other) }
    }
    #[inline(always)]
    fn not(self) -> Self {
        // SAFETY: as above.
        self.xor(unsafe { _mm256_set1_epi8(-1) })
    }
}

/// The caller runs on a CPU with AVX-512, since it has such a value.
impl Bits for __m512i {
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_xor_si512(self, other) }
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_and_si512(self, other) }
    }
    #[inline(always)]
    fn not(self) -> Self {
        // SAFETY: as above.
        self.xor(unsafe { _mm512_set1_epi8(-1) })
    }
}

/// The sum of those values that an output has. There are two partial sums, so that fewer additions
/// wait for each other.
macro_rules! sum {
    ($output:expr, $values:expr, $($n:literal)*) => {{
        let (mut sum, mut other) = (None, None);
        $(if $output >> $n & 1 == 1 {
            (sum, other) = (other, Some(plus(sum, $values[$n])));
        })*
        // No output is constant.
        let sum = plus(sum, other.unwrap_or($values[0]));
        if $output & 1 == 1 { sum.not() } else { sum }
    }};
}

#[inline(always)]
fn plus<T: Bits>(sum: Option<T>, value: T) -> T {
    match sum {
        Some(sum) => sum.xor(value),
        None => value,
    }
}

/// Applies an S-box to four words. The caller's sums are constants, so that no branch is left.
#[inline(always)]
fn substituted<T: Bits>(sums: &Sums, [a, b, c, d]: [T; 4]) -> [T; 4] {
    let (ab, ac, bc) = (a.and(b), a.and(c), b.and(c));
    let (ad, bd, cd) = (a.and(d), b.and(d), c.and(d));
    let (abc, abd, acd, bcd) = (ab.and(c), ab.and(d), ac.and(d), bc.and(d));
    // No S-box has product 15.
    let mut values = [
        a, a, b, ab, c, ac, bc, abc, d, ad, bd, abd, cd, acd, bcd, a, a, a, a, a, a, a,
    ];
    for n in 0..SHARED {
        let [one, other] = sums.shared[n];
        values[16 + n] = values[one].xor(values[other]);
    }
    let bit =
        |output: u32| sum!(output, values, 1 2 3 4 5 6 7 8 9 10 11 12 13 14 16 17 18 19 20 21);
    [
        bit(sums.outputs[0]),
        bit(sums.outputs[1]),
        bit(sums.outputs[2]),
        bit(sums.outputs[3]),
    ]
}

// --- the key schedule (section 4) ----------------------------------------------------------------

fn expand(key: &[u8]) -> [[u32; 4]; ROUNDS + 1] {
    let mut padded = [0; 32];
    padded[..key.len()].copy_from_slice(key);
    if let Some(byte) = padded.get_mut(key.len()) {
        *byte = 1;
    }
    let mut last = [0; 8];
    for (word, bytes) in last.iter_mut().zip(padded.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let mut keys = [[0; 4]; ROUNDS + 1];
    for (word, n) in keys.as_flattened_mut().iter_mut().zip(0..) {
        let [a, _, _, b, _, c, _, d] = last;
        *word = (a ^ b ^ c ^ d ^ 0x9e37_79b9 ^ n).rotate_left(11);
        last.rotate_left(1);
        last[7] = *word;
    }
    for (key, sums) in keys.iter_mut().zip(SUMS.iter().rev().cycle().skip(4)) {
        *key = substituted(sums, *key);
    }
    padded.zeroize();
    last.zeroize();
    keys
}

type Keys = [[u32; 4]; ROUNDS + 1];

impl Wide for Serpent {
    type Other = ::serpent::Serpent;

    fn new(token: Token, key: &[u8], _: &::serpent::Serpent) -> Self {
        let keys = expand(key);
        Self {
            token,
            token512: Token512::detect(),
            keys,
        }
    }

    fn encrypt(&self, blocks: &mut Blocks) {
        let Token(()) = self.token;
        match self.token512 {
            // SAFETY: the token proves that this CPU has AVX-512.
            Some(Token512(())) => unsafe { encrypt_512(&self.keys, blocks) },
            // SAFETY: the token proves that this CPU has AVX2.
            None => unsafe { encrypt_256(&self.keys, blocks) },
        }
    }

    fn decrypt(&self, blocks: &mut Blocks) {
        let Token(()) = self.token;
        match self.token512 {
            // SAFETY: the token proves that this CPU has AVX-512.
            Some(Token512(())) => unsafe { decrypt_512(&self.keys, blocks) },
            // SAFETY: the token proves that this CPU has AVX2.
            None => unsafe { decrypt_256(&self.keys, blocks) },
        }
    }
}

impl Drop for Serpent {
    fn drop(&mut self) {
        self.keys.zeroize();
    }
}

#[target_feature(enable = "avx2")]
fn encrypt_256(keys: &Keys, blocks: &mut Blocks) {
    encrypt::<__m256i>(keys, blocks);
}

#[target_feature(enable = "avx2")]
fn decrypt_256(keys: &Keys, blocks: &mut Blocks) {
    decrypt::<__m256i>(keys, blocks);
}

#[target_feature(enable = "avx512f")]
fn encrypt_512(keys: &Keys, blocks: &mut Blocks) {
    encrypt::<__m512i>(keys, blocks);
}

#[target_feature(enable = "avx512f")]
fn decrypt_512(keys: &Keys, blocks: &mut Blocks) {
    decrypt::<__m512i>(keys, blocks);
}

// --- registers -----------------------------------------------------------------------------------

/// A register with a word of each block of a group.
trait Register: Bits {
    /// As many blocks as a register has words.
    type Group;
    fn pairs(blocks: &mut Blocks) -> &mut [[Self::Group; 2]];
    /// A register for each of the four words of the blocks.
    fn words_of(blocks: &Self::Group) -> [Self; 4];
    /// The reverse of [`words_of`](Self::words_of).
    fn put_words(blocks: &mut Self::Group, words: [Self; 4]);
    fn of(word: u32) -> Self;
    /// Shifts each word to the left.
    fn shifted<const LEFT: u32>(self) -> Self;
    /// Rotates each word to the left by `LEFT` bits, which with `RIGHT` are 32.
    fn rotated<const LEFT: i32, const RIGHT: i32>(self) -> Self;
}

/// The caller runs on a CPU with AVX2.
impl Register for __m256i {
    type Group = [[u8; 16]; 8];
    #[inline(always)]
    fn pairs(blocks: &mut Blocks) -> &mut [[Self::Group; 2]] {
        blocks.as_chunks_mut::<8>().0.as_chunks_mut::<2>().0
    }
    #[inline(always)]
    fn words_of(blocks: &Self::Group) -> [Self; 4] {
        // SAFETY: as above.
        unsafe { words_of(blocks) }
    }
    #[inline(always)]
    fn put_words(blocks: &mut Self::Group, words: [Self; 4]) {
        // SAFETY: as above.
        unsafe { put_words(blocks, words) }
    }
    #[inline(always)]
    fn of(word: u32) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_set1_epi32(word.cast_signed()) }
    }
    #[inline(always)]
    fn shifted<const LEFT: u32>(self) -> Self {
        // SAFETY: every x86-64 has SSE2.
        let count = unsafe { _mm_cvtsi32_si128(LEFT.cast_signed()) };
        // SAFETY: as above.
        unsafe { _mm256_sll_epi32(self, count) }
    }
    #[inline(always)]
    fn rotated<const LEFT: i32, const RIGHT: i32>(self) -> Self {
        const { assert!(LEFT + RIGHT == 32) };
        // SAFETY: as above.
        let left = unsafe { _mm256_slli_epi32::<LEFT>(self) };
        // SAFETY: as above.
        let right = unsafe { _mm256_srli_epi32::<RIGHT>(self) };
        // SAFETY: as above.
        unsafe { _mm256_or_si256(left, right) }
    }
}

/// The caller runs on a CPU with AVX-512.
impl Register for __m512i {
    type Group = [[u8; 16]; 16];
    #[inline(always)]
    fn pairs(blocks: &mut Blocks) -> &mut [[Self::Group; 2]] {
        blocks.as_chunks_mut::<16>().0.as_chunks_mut::<2>().0
    }
    #[inline(always)]
    fn words_of(blocks: &Self::Group) -> [Self; 4] {
        // SAFETY: as above.
        unsafe { words_of_16(blocks) }
    }
    #[inline(always)]
    fn put_words(blocks: &mut Self::Group, words: [Self; 4]) {
        // SAFETY: as above.
        unsafe { put_words_of_16(blocks, words) }
    }
    #[inline(always)]
    fn of(word: u32) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(word.cast_signed()) }
    }
    #[inline(always)]
    fn shifted<const LEFT: u32>(self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_slli_epi32::<LEFT>(self) }
    }
    #[inline(always)]
    fn rotated<const LEFT: i32, const RIGHT: i32>(self) -> Self {
        const { assert!(LEFT + RIGHT == 32) };
        // SAFETY: as above.
        unsafe { _mm512_rol_epi32::<LEFT>(self) }
    }
}

// --- rounds (section 3) --------------------------------------------------------------------------

/// Repeats the body for each of eight rounds, whose S-boxes differ.
macro_rules! eight_rounds {
    ($n:ident in $($value:literal)* $body:block) => {
        $({
            #[allow(non_upper_case_globals)]
            const $n: usize = $value;
            $body
        })*
    };
}

/// Inlined into a function for a detected CPU, as all that it calls.
#[inline(always)]
fn encrypt<R: Register>(keys: &Keys, blocks: &mut Blocks) {
    for [one, other] in R::pairs(blocks) {
        let (mut x, mut y) = (R::words_of(one), R::words_of(other));
        for n in (0..ROUNDS).step_by(8) {
            eight_rounds!(m in 0 1 2 3 4 5 6 7 {
                x = substituted(&const { SUMS[m] }, with_key(x, &keys[n + m]));
                y = substituted(&const { SUMS[m] }, with_key(y, &keys[n + m]));
                if m < 7 || n < ROUNDS - 8 {
                    (x, y) = (mixed(x), mixed(y));
                }
            });
        }
        R::put_words(one, with_key(x, &keys[ROUNDS]));
        R::put_words(other, with_key(y, &keys[ROUNDS]));
    }
}

/// As [`encrypt`].
#[inline(always)]
fn decrypt<R: Register>(keys: &Keys, blocks: &mut Blocks) {
    for [one, other] in R::pairs(blocks) {
        let mut x = with_key(R::words_of(one), &keys[ROUNDS]);
        let mut y = with_key(R::words_of(other), &keys[ROUNDS]);
        for n in (0..ROUNDS).step_by(8).rev() {
            eight_rounds!(m in 7 6 5 4 3 2 1 0 {
                if m < 7 || n < ROUNDS - 8 {
                    (x, y) = (unmixed(x), unmixed(y));
                }
                x = with_key(substituted(&const { INVERSE_SUMS[m] }, x), &keys[n + m]);
                y = with_key(substituted(&const { INVERSE_SUMS[m] }, y), &keys[n + m]);
            });
        }
        R::put_words(one, x);
        R::put_words(other, y);
    }
}

#[inline(always)]
fn with_key<R: Register>(words: [R; 4], key: &[u32; 4]) -> [R; 4] {
    let [a, b, c, d] = key.map(R::of);
    let [w, x, y, z] = words;
    [w.xor(a), x.xor(b), y.xor(c), z.xor(d)]
}

/// The linear transformation.
#[inline(always)]
fn mixed<R: Register>([a, b, c, d]: [R; 4]) -> [R; 4] {
    let (a, c) = (a.rotated::<13, 19>(), c.rotated::<3, 29>());
    let b = b.xor(a).xor(c);
    let d = d.xor(c).xor(a.shifted::<3>());
    let (b, d) = (b.rotated::<1, 31>(), d.rotated::<7, 25>());
    let a = a.xor(b).xor(d);
    let c = c.xor(d).xor(b.shifted::<7>());
    [a.rotated::<5, 27>(), b, c.rotated::<22, 10>(), d]
}

#[inline(always)]
fn unmixed<R: Register>([a, b, c, d]: [R; 4]) -> [R; 4] {
    let (a, c) = (a.rotated::<27, 5>(), c.rotated::<10, 22>());
    let c = c.xor(d).xor(b.shifted::<7>());
    let a = a.xor(b).xor(d);
    let (b, d) = (b.rotated::<31, 1>(), d.rotated::<25, 7>());
    let d = d.xor(c).xor(a.shifted::<3>());
    let b = b.xor(a).xor(c);
    [a.rotated::<19, 13>(), b, c.rotated::<29, 3>(), d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_widths_give_the_same_bytes() {
        let Some(token) = Token::detect() else {
            return;
        };
        let key: Vec<u8> = (7..39).collect();
        let other = cipher::KeyInit::new_from_slice(&key).unwrap();
        let wide = Serpent::new(token, &key, &other);
        let mut narrow = Serpent::new(token, &key, &other);
        narrow.token512 = None;
        let mut blocks: Blocks = [[0; 16]; 32];
        let bytes = blocks.as_flattened_mut().iter_mut();
        bytes.zip((0..=250).cycle()).for_each(|(byte, n)| *byte = n);
        let (plain, mut by_narrow) = (blocks, blocks);
        wide.encrypt(&mut blocks);
        narrow.encrypt(&mut by_narrow);
        assert_eq!(blocks, by_narrow);
        wide.decrypt(&mut blocks);
        narrow.decrypt(&mut by_narrow);
        assert_eq!(blocks, plain);
        assert_eq!(by_narrow, plain);
    }
}
