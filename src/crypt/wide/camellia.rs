//! Camellia (RFC 3713), byte by byte: a register has the same byte of each of 32 blocks.

use std::arch::x86_64::*;

use cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, KeyInit, consts::U16};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroize;

use super::lookup::Table;
use super::registers::{load, store};
use super::{Blocks, Token, Wide};

/// `C` is the same cipher for other CPUs, with keys of one size.
pub(in crate::crypt) struct Camellia<C> {
    token: Token,
    encrypt: Keys,
    decrypt: Keys,
    other: std::marker::PhantomData<C>,
}

/// The subkeys of one direction, in order of use.
struct Keys {
    start: [u64; 2],
    /// Six rounds each. With keys of 128 bits there are three groups.
    groups: [[u64; 6]; 4],
    count: usize,
    /// Those of FL and its inverse, between the groups.
    between: [[u64; 2]; 3],
    end: [u64; 2],
}

// --- the key schedule (section 2.2) --------------------------------------------------------------

/// s1; the other S-boxes are rotations of it.
#[rustfmt::skip]
const S1: [u8; 256] = [
    0x70, 0x82, 0x2c, 0xec, 0xb3, 0x27, 0xc0, 0xe5, 0xe4, 0x85, 0x57, 0x35, 0xea, 0x0c, 0xae, 0x41,
    0x23, 0xef, 0x6b, 0x93, 0x45, 0x19, 0xa5, 0x21, 0xed, 0x0e, 0x4f, 0x4e, 0x1d, 0x65, 0x92, 0xbd,
    0x86, 0xb8, 0xaf, 0x8f, 0x7c, 0xeb, 0x1f, 0xce, 0x3e, 0x30, 0xdc, 0x5f, 0x5e, 0xc5, 0x0b, 0x1a,
    0xa6, 0xe1, 0x39, 0xca, 0xd5, 0x47, 0x5d, 0x3d, 0xd9, 0x01, 0x5a, 0xd6, 0x51, 0x56, 0x6c, 0x4d,
    0x8b, 0x0d, 0x9a, 0x66, 0xfb, 0xcc, 0xb0, 0x2d, 0x74, 0x12, 0x2b, 0x20, 0xf0, 0xb1, 0x84, 0x99,
    0xdf, 0x4c, 0xcb, 0xc2, 0x34, 0x7e, 0x76, 0x05, 0x6d, 0xb7, 0xa9, 0x31, 0xd1, 0x17, 0x04, 0xd7,
    0x14, 0x58, 0x3a, 0x61, 0xde, 0x1b, 0x11, 0x1c, 0x32, 0x0f, 0x9c, 0x16, 0x53, 0x18, 0xf2, 0x22,
    0xfe, 0x44, 0xcf, 0xb2, 0xc3, 0xb5, 0x7a, 0x91, 0x24, 0x08, 0xe8, 0xa8, 0x60, 0xfc, 0x69, 0x50,
    0xaa, 0xd0, 0xa0, 0x7d, 0xa1, 0x89, 0x62, 0x97, 0x54, 0x5b, 0x1e, 0x95, 0xe0, 0xff, 0x64, 0xd2,
    0x10, 0xc4, 0x00, 0x48, 0xa3, 0xf7, 0x75, 0xdb, 0x8a, 0x03, 0xe6, 0xda, 0x09, 0x3f, 0xdd, 0x94,
    0x87, 0x5c, 0x83, 0x02, 0xcd, 0x4a, 0x90, 0x33, 0x73, 0x67, 0xf6, 0xf3, 0x9d, 0x7f, 0xbf, 0xe2,
    0x52, 0x9b, 0xd8, 0x26, 0xc8, 0x37, 0xc6, 0x3b, 0x81, 0x96, 0x6f, 0x4b, 0x13, 0xbe, 0x63, 0x2e,
    0xe9, 0x79, 0xa7, 0x8c, 0x9f, 0x6e, 0xbc, 0x8e, 0x29, 0xf5, 0xf9, 0xb6, 0x2f, 0xfd, 0xb4, 0x59,
    0x78, 0x98, 0x06, 0x6a, 0xe7, 0x46, 0x71, 0xba, 0xd4, 0x25, 0xab, 0x42, 0x88, 0xa2, 0x8d, 0xfa,
    0x72, 0x07, 0xb9, 0x55, 0xf8, 0xee, 0xac, 0x0a, 0x36, 0x49, 0x2a, 0x68, 0x3c, 0x38, 0xf1, 0xa4,
    0x40, 0x28, 0xd3, 0x7b, 0xbb, 0xc9, 0x43, 0xc1, 0x15, 0xe3, 0xad, 0xf4, 0x77, 0xc7, 0x80, 0x9e,
];

const SIGMA: [u64; 6] = [
    0xa09e_667f_3bcc_908b,
    0xb67a_e858_4caa_73b2,
    0xc6ef_372f_e94f_82be,
    0x54ff_53a5_f1d3_6f1c,
    0x10e5_27fa_de68_2d1d,
    0xb056_88c2_b3e6_c1fd,
];

/// An entry of s1. This reads the whole table, so that its address tells nothing of `x`.
fn s1(x: u8) -> u8 {
    let mut found = 0;
    for (entry, n) in S1.iter().zip(0..=255_u8) {
        found.conditional_assign(entry, n.ct_eq(&x));
    }
    found
}

fn f(x: u64, key: u64) -> u64 {
    let x = (x ^ key).to_be_bytes();
    let [s2, s3] = [1, 7].map(|by| move |x: u8| s1(x).rotate_left(by));
    let s4 = |x: u8| s1(x.rotate_left(1));
    let t = [
        s1(x[0]),
        s2(x[1]),
        s3(x[2]),
        s4(x[3]),
        s2(x[4]),
        s3(x[5]),
        s4(x[6]),
        s1(x[7]),
    ];
    u64::from_be_bytes(TERMS.map(|terms| terms.iter().fold(0, |sum, n| sum ^ t[*n])))
}

/// The values that each byte of P is the sum of. The last four bytes have only five.
const TERMS: [&[usize]; 8] = [
    &[0, 2, 3, 5, 6, 7],
    &[0, 1, 3, 4, 6, 7],
    &[0, 1, 2, 4, 5, 7],
    &[1, 2, 3, 4, 5, 6],
    &[0, 1, 5, 6, 7],
    &[1, 2, 4, 6, 7],
    &[2, 3, 4, 5, 7],
    &[0, 3, 4, 5, 6],
];

/// Two rounds of a Feistel network on a key.
fn two_rounds(key: u128, sigma: [u64; 2]) -> u128 {
    let [mut left, mut right] = halves(key);
    right ^= f(left, sigma[0]);
    left ^= f(right, sigma[1]);
    u128::from(left) << 64 | u128::from(right)
}

/// The high and the low half.
fn halves(key: u128) -> [u64; 2] {
    let bytes = key.to_be_bytes();
    let [high, low] = [&bytes[..8], &bytes[8..]];
    [high, low].map(|half| half.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

impl Keys {
    /// The subkeys for encryption.
    fn expand(key: &[u8]) -> Self {
        let (parts, rest) = key.as_chunks::<16>();
        let number = |bytes: &[u8; 16]| u128::from_be_bytes(*bytes);
        let l = number(&parts[0]);
        let r = match (parts.get(1), rest.as_chunks::<8>().0.first()) {
            (Some(r), _) => number(r),
            (None, Some(half)) => {
                let half = u64::from_be_bytes(*half);
                u128::from(half) << 64 | u128::from(!half)
            }
            (None, None) => 0,
        };
        let a = two_rounds(l ^ r, [SIGMA[0], SIGMA[1]]);
        let a = two_rounds(a ^ l, [SIGMA[2], SIGMA[3]]);
        let b = two_rounds(a ^ r, [SIGMA[4], SIGMA[5]]);
        let of = |key: u128, by: u32| halves(key.rotate_left(by));
        let group = |parts: [[u64; 2]; 3]| {
            let [[a, b], [c, d], [e, f]] = parts;
            [a, b, c, d, e, f]
        };
        if key.len() == 16 {
            return Self {
                start: of(l, 0),
                groups: [
                    group([of(a, 0), of(l, 15), of(a, 15)]),
                    group([of(l, 45), [of(a, 45)[0], of(l, 60)[1]], of(a, 60)]),
                    group([of(l, 94), of(a, 94), of(l, 111)]),
                    [0; 6],
                ],
                count: 3,
                between: [of(a, 30), of(l, 77), [0; 2]],
                end: of(a, 111),
            };
        }
        Self {
            start: of(l, 0),
            groups: [
                group([of(b, 0), of(r, 15), of(a, 15)]),
                group([of(b, 30), of(l, 45), of(a, 45)]),
                group([of(r, 60), of(b, 60), of(l, 77)]),
                group([of(r, 94), of(a, 94), of(l, 111)]),
            ],
            count: 4,
            between: [of(r, 30), of(l, 60), of(a, 77)],
            end: of(b, 111),
        }
    }

    /// The subkeys for decryption.
    fn reversed(&self) -> Self {
        let mut keys = Self {
            start: self.end,
            groups: self.groups,
            count: self.count,
            between: self.between,
            end: self.start,
        };
        keys.groups[..self.count].reverse();
        keys.groups.iter_mut().for_each(|group| group.reverse());
        keys.between[..self.count - 1].reverse();
        keys.between.iter_mut().for_each(|pair| pair.reverse());
        keys
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.start.zeroize();
        self.groups.zeroize();
        self.between.zeroize();
        self.end.zeroize();
    }
}

impl<C> Wide for Camellia<C>
where
    C: KeyInit
        + BlockCipherEncrypt
        + BlockCipherDecrypt
        + BlockSizeUser<BlockSize = U16>
        + Send
        + Sync
        + 'static,
{
    type Other = C;

    fn new(token: Token, key: &[u8], _: &C) -> Self {
        let encrypt = Keys::expand(key);
        Self {
            token,
            decrypt: encrypt.reversed(),
            encrypt,
            other: std::marker::PhantomData,
        }
    }

    fn encrypt(&self, blocks: &mut Blocks) {
        let Token(()) = self.token;
        // SAFETY: the token proves that this CPU has AVX2.
        unsafe { turn(&self.encrypt, blocks) };
    }

    fn decrypt(&self, blocks: &mut Blocks) {
        let Token(()) = self.token;
        // SAFETY: the token proves that this CPU has AVX2.
        unsafe { turn(&self.decrypt, blocks) };
    }
}

// --- rounds (section 2.3) ------------------------------------------------------------------------

/// Half of each of 32 blocks, a register for each byte.
type Half = [__m256i; 8];

/// The S-boxes s1 to s4.
static S: [Table; 4] = {
    let mut boxes = [S1; 4];
    let mut n = 0;
    while n < 256 {
        boxes[1][n] = S1[n].rotate_left(1);
        boxes[2][n] = S1[n].rotate_left(7);
        // The index, rotated.
        boxes[3][n] = S1[n * 2 % 256 + n / 128];
        n += 1;
    }
    [
        Table::new(&boxes[0]),
        Table::new(&boxes[1]),
        Table::new(&boxes[2]),
        Table::new(&boxes[3]),
    ]
};

/// The S-box of each byte, from 0.
const BOXES: [usize; 8] = [0, 1, 2, 3, 1, 2, 3, 0];

#[target_feature(enable = "avx2")]
fn turn(keys: &Keys, blocks: &mut Blocks) {
    let [mut left, mut right] = gathered(blocks);
    add_key(&mut left, keys.start[0]);
    add_key(&mut right, keys.start[1]);
    let mut between = keys.between.iter();
    for (group, n) in keys.groups[..keys.count].iter().zip(0..) {
        if n > 0
            && let Some([of_left, of_right]) = between.next()
        {
            add_or_shift(&mut left, *of_left);
            shift_or_add(&mut right, *of_right);
        }
        for [first, second] in group.as_chunks::<2>().0 {
            add_f(&mut right, &left, *first);
            add_f(&mut left, &right, *second);
        }
    }
    add_key(&mut right, keys.end[0]);
    add_key(&mut left, keys.end[1]);
    scatter(blocks, [right, left]);
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_key(half: &mut Half, key: u64) {
    for (byte, key) in half.iter_mut().zip(key.to_be_bytes()) {
        *byte = _mm256_xor_si256(*byte, _mm256_set1_epi8(key.cast_signed()));
    }
}

/// Adds the function F of `x` to `sum`.
#[inline]
#[target_feature(enable = "avx2")]
fn add_f(sum: &mut Half, x: &Half, key: u64) {
    let mut t = *x;
    add_key(&mut t, key);
    for n in 0..8 {
        t[n] = S[BOXES[n]].look_up(t[n]);
    }
    for n in 0..8 {
        for term in TERMS[n] {
            sum[n] = _mm256_xor_si256(sum[n], t[*term]);
        }
    }
}

/// The function FL.
#[inline]
#[target_feature(enable = "avx2")]
fn add_or_shift(half: &mut Half, key: u64) {
    add_shifted(half, key);
    add_or(half, key);
}

/// The inverse of FL.
#[inline]
#[target_feature(enable = "avx2")]
fn shift_or_add(half: &mut Half, key: u64) {
    add_or(half, key);
    add_shifted(half, key);
}

/// Adds the first word, if the key has a bit, rotated to the left by one bit, to the second.
#[inline]
#[target_feature(enable = "avx2")]
fn add_shifted(half: &mut Half, key: u64) {
    let mut word = [half[0], half[1], half[2], half[3]];
    for (byte, key) in word.iter_mut().zip(key.to_be_bytes()) {
        *byte = _mm256_and_si256(*byte, _mm256_set1_epi8(key.cast_signed()));
    }
    for n in 0..4 {
        let doubled = _mm256_add_epi8(word[n], word[n]);
        let next = _mm256_srli_epi16::<7>(word[(n + 1) % 4]);
        let carried = _mm256_and_si256(next, _mm256_set1_epi8(1));
        half[4 + n] = _mm256_xor_si256(half[4 + n], _mm256_or_si256(doubled, carried));
    }
}

/// Adds the second word, or one where the key has a bit, to the first.
#[inline]
#[target_feature(enable = "avx2")]
fn add_or(half: &mut Half, key: u64) {
    let [_, _, _, _, key @ ..] = key.to_be_bytes();
    for n in 0..4 {
        let either = _mm256_or_si256(half[4 + n], _mm256_set1_epi8(key[n].cast_signed()));
        half[n] = _mm256_xor_si256(half[n], either);
    }
}

// --- bytes and blocks ----------------------------------------------------------------------------

#[inline]
#[target_feature(enable = "avx2")]
fn gathered(blocks: &Blocks) -> [Half; 2] {
    let mut registers = [_mm256_setzero_si256(); 16];
    for (register, pair) in registers.iter_mut().zip(blocks.as_chunks::<2>().0) {
        *register = load(pair);
    }
    let bytes = transposed(registers);
    let (halves, _) = bytes.as_chunks::<8>();
    [halves[0], halves[1]]
}

#[inline]
#[target_feature(enable = "avx2")]
fn scatter(blocks: &mut Blocks, halves: [Half; 2]) {
    let mut bytes = [_mm256_setzero_si256(); 16];
    bytes.copy_from_slice(halves.as_flattened());
    for (register, pair) in transposed(bytes).iter().zip(blocks.as_chunks_mut::<2>().0) {
        store(pair, *register);
    }
}

/// Transposes the 16 bytes in each half of 16 registers. Each of four steps interleaves the bytes
/// of two registers that are eight apart.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(registers: [__m256i; 16]) -> [__m256i; 16] {
    let mut now = registers;
    for _ in 0..4 {
        let before = now;
        for n in 0..8 {
            now[2 * n] = _mm256_unpacklo_epi8(before[n], before[n + 8]);
            now[2 * n + 1] = _mm256_unpackhi_epi8(before[n], before[n + 8]);
        }
    }
    now
}
