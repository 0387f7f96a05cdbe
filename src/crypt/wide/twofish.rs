//! Twofish, byte by byte: a register has the same byte of a word of each of 32 blocks while the
//! S-boxes of the key are looked up, and a word of each of eight blocks between that.

use std::arch::x86_64::*;

use zeroize::Zeroize;

use super::lookup::Table;
use super::registers::{put_words, transposed, twice, words_of};
use super::{Blocks, Token, Wide};
use crate::crypt::twofish;

pub(in crate::crypt) struct Twofish {
    token: Token,
    /// The S-boxes of the key, for each byte of a word.
    boxes: [Table; 4],
    keys: [u32; 40],
}

impl Wide for Twofish {
    type Other = twofish::Twofish;

    fn new(token: Token, _: &[u8], other: &twofish::Twofish) -> Self {
        Self {
            token,
            boxes: other.boxes().each_ref().map(Table::new),
            keys: *other.keys(),
        }
    }

    fn encrypt(&self, blocks: &mut Blocks) {
        let Token(()) = self.token;
        // SAFETY: the token proves that this CPU has AVX2.
        unsafe { self.encrypt_all(blocks) };
    }

    fn decrypt(&self, blocks: &mut Blocks) {
        let Token(()) = self.token;
        // SAFETY: the token proves that this CPU has AVX2.
        unsafe { self.decrypt_all(blocks) };
    }
}

impl Drop for Twofish {
    fn drop(&mut self) {
        self.boxes.zeroize();
        self.keys.zeroize();
    }
}

/// A word of each of 32 blocks.
type Words = [__m256i; 4];

impl Twofish {
    #[target_feature(enable = "avx2")]
    fn encrypt_all(&self, blocks: &mut Blocks) {
        let [mut a, mut b, mut c, mut d] = gathered(blocks);
        for (word, n) in [&mut a, &mut b, &mut c, &mut d].into_iter().zip(0..) {
            add_key(word, self.keys[n]);
        }
        for key in self.keys[8..].as_chunks::<2>().0 {
            let (e, f) = self.f(&a, &b, key);
            for n in 0..4 {
                c[n] = rotated::<31, 1>(_mm256_xor_si256(c[n], e[n]));
                d[n] = _mm256_xor_si256(rotated::<1, 31>(d[n]), f[n]);
            }
            ([a, b], [c, d]) = ([c, d], [a, b]);
        }
        for (word, n) in [&mut c, &mut d, &mut a, &mut b].into_iter().zip(4..) {
            add_key(word, self.keys[n]);
        }
        scatter(blocks, &[c, d, a, b]);
    }

    #[target_feature(enable = "avx2")]
    fn decrypt_all(&self, blocks: &mut Blocks) {
        let [mut c, mut d, mut a, mut b] = gathered(blocks);
        for (word, n) in [&mut c, &mut d, &mut a, &mut b].into_iter().zip(4..) {
            add_key(word, self.keys[n]);
        }
        for key in self.keys[8..].as_chunks::<2>().0.iter().rev() {
            ([a, b], [c, d]) = ([c, d], [a, b]);
            let (e, f) = self.f(&a, &b, key);
            for n in 0..4 {
                c[n] = _mm256_xor_si256(rotated::<1, 31>(c[n]), e[n]);
                d[n] = rotated::<31, 1>(_mm256_xor_si256(d[n], f[n]));
            }
        }
        for (word, n) in [&mut a, &mut b, &mut c, &mut d].into_iter().zip(0..) {
            add_key(word, self.keys[n]);
        }
        scatter(blocks, &[a, b, c, d]);
    }

    /// The two values that a round adds to the other half.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn f(&self, a: &Words, b: &Words, key: &[u32; 2]) -> (Words, Words) {
        let [b0, b1, b2, b3] = bytes_of(b);
        let (mut e, mut f) = (self.g(bytes_of(a)), self.g([b3, b0, b1, b2]));
        let [e_key, f_key] = key.map(|key| _mm256_set1_epi32(key.cast_signed()));
        for n in 0..4 {
            let sum = _mm256_add_epi32(e[n], f[n]);
            f[n] = _mm256_add_epi32(_mm256_add_epi32(sum, f[n]), f_key);
            e[n] = _mm256_add_epi32(sum, e_key);
        }
        (e, f)
    }

    /// The function g of the words with these bytes.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn g(&self, bytes: [__m256i; 4]) -> Words {
        let mut y = bytes;
        for n in 0..4 {
            y[n] = self.boxes[n].look_up(y[n]);
        }
        let (mut y5b, mut yef) = (y, y);
        for n in 0..4 {
            let low = _mm256_and_si256(y[n], _mm256_set1_epi8(15));
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(y[n]), _mm256_set1_epi8(15));
            let product = |[of_low, of_high]: &[[u8; 16]; 2]| {
                let low = _mm256_shuffle_epi8(twice(of_low), low);
                _mm256_xor_si256(low, _mm256_shuffle_epi8(twice(of_high), high))
            };
            (y5b[n], yef[n]) = (product(&BY_5B), product(&BY_EF));
        }
        words_of_bytes([
            sum([y[0], yef[1], y5b[2], y5b[3]]),
            sum([y5b[0], yef[1], yef[2], y[3]]),
            sum([yef[0], y5b[1], y[2], yef[3]]),
            sum([yef[0], y[1], yef[2], y5b[3]]),
        ])
    }
}

/// The products of 0x5b with the low and with the high half of a byte.
const BY_5B: [[u8; 16]; 2] = products(0x5b);
const BY_EF: [[u8; 16]; 2] = products(0xef);

const fn products(factor: u8) -> [[u8; 16]; 2] {
    let mut products = [[0; 16]; 2];
    let mut n = 0;
    while n < 16 {
        products[0][n as usize] = twofish::times(factor, n, twofish::MDS_POLYNOMIAL);
        products[1][n as usize] = twofish::times(factor, n << 4, twofish::MDS_POLYNOMIAL);
        n += 1;
    }
    products
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum([a, b, c, d]: [__m256i; 4]) -> __m256i {
    _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d))
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_key(words: &mut Words, key: u32) {
    for word in words {
        *word = _mm256_xor_si256(*word, _mm256_set1_epi32(key.cast_signed()));
    }
}

/// Rotates each word to the left by `LEFT` bits, which with `RIGHT` are 32.
#[inline]
#[target_feature(enable = "avx2")]
fn rotated<const LEFT: i32, const RIGHT: i32>(words: __m256i) -> __m256i {
    const { assert!(LEFT + RIGHT == 32) };
    let (left, right) = (
        _mm256_slli_epi32::<LEFT>(words),
        _mm256_srli_epi32::<RIGHT>(words),
    );
    _mm256_or_si256(left, right)
}

// --- bytes, words and blocks ---------------------------------------------------------------------

/// A register for each byte of 32 words.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes_of(words: &Words) -> [__m256i; 4] {
    let mut registers = *words;
    for register in &mut registers {
        *register = _mm256_shuffle_epi8(*register, twice(&BY_PLACE));
    }
    transposed(registers)
}

/// The reverse of [`bytes_of`].
#[inline]
#[target_feature(enable = "avx2")]
fn words_of_bytes(bytes: [__m256i; 4]) -> Words {
    let mut registers = transposed(bytes);
    for register in &mut registers {
        *register = _mm256_shuffle_epi8(*register, twice(&BY_PLACE));
    }
    registers
}

/// Moves the bytes of four words together by their place in the word, and back.
const BY_PLACE: [u8; 16] = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];

#[inline]
#[target_feature(enable = "avx2")]
fn gathered(blocks: &Blocks) -> [Words; 4] {
    let (groups, _) = blocks.as_chunks::<8>();
    let mut all = [[_mm256_setzero_si256(); 4]; 4];
    for n in 0..4 {
        let words = words_of(&groups[n]);
        for m in 0..4 {
            all[m][n] = words[m];
        }
    }
    all
}

#[inline]
#[target_feature(enable = "avx2")]
fn scatter(blocks: &mut Blocks, all: &[Words; 4]) {
    let (groups, _) = blocks.as_chunks_mut::<8>();
    for n in 0..4 {
        put_words(&mut groups[n], [all[0][n], all[1][n], all[2][n], all[3][n]]);
    }
}
