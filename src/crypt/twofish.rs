//! Twofish ("Twofish: A 128-Bit Block Cipher", Schneier et al., 1998), with the key expanded once.
//!
//! The function g of a round depends on the key. It is expanded to an S-box for each byte of its
//! argument. The expansion itself uses no table and no branch that depends on the key, but the
//! rounds look up the S-boxes. Where the CPU has AVX2, `wide/twofish.rs` does the rounds.

use cipher::consts::{U2, U16, U32};
use cipher::{
    Block, BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, InOut, InvalidLength, Key, KeyInit,
    KeySizeUser, ParBlocks, ParBlocksSizeUser,
};
use zeroize::Zeroize;

/// The blocks that are processed together, so that a look-up of one does not wait for another.
type Width = U2;

pub(super) struct Twofish {
    /// The S-boxes of g, for each byte of its argument.
    boxes: [[u8; 256]; 4],
    /// The words of the expanded key: for whitening, then for each round.
    keys: [u32; 40],
}

// --- the key schedule (section 4.3) --------------------------------------------------------------

/// The fixed permutations q0 and q1 (section 4.3.5), each as four tables of 4 bits to 4 bits. The
/// lowest digit of a number is the first entry.
const Q: [[u64; 4]; 2] = [
    [
        0x4ace_95b0_23f6_d718,
        0xd907_6a4f_5321_8bce,
        0x1742_3f8c_09d6_e5ab,
        0xac58_03b9_e621_4f7d,
    ],
    [
        0x5ca0_4913_e67f_db82,
        0x809f_5ad6_73c4_b2e1,
        0xf3b2_8de0_a961_57c4,
        0xa802_f746_ed3c_159b,
    ],
];

/// Which of q0 and q1 a byte of the argument of h goes through, in this order. With shorter keys
/// the first ones are omitted.
const ORDER: [[usize; 5]; 4] = [
    [1, 1, 0, 0, 1],
    [0, 1, 1, 0, 0],
    [0, 0, 0, 1, 1],
    [1, 0, 1, 1, 0],
];

/// The matrix MDS, by columns, and its polynomial x^8 + x^6 + x^5 + x^3 + 1.
const MDS: [[u8; 4]; 4] = [
    [0x01, 0x5b, 0xef, 0xef],
    [0xef, 0xef, 0x5b, 0x01],
    [0x5b, 0xef, 0x01, 0xef],
    [0x5b, 0x01, 0xef, 0x5b],
];
pub(super) const MDS_POLYNOMIAL: u8 = 0x69;

/// The matrix RS, by rows, and its polynomial x^8 + x^6 + x^3 + x^2 + 1.
const RS: [[u8; 8]; 4] = [
    [0x01, 0xa4, 0x55, 0x87, 0x5a, 0x58, 0xdb, 0x9e],
    [0xa4, 0x56, 0x82, 0xf3, 0x1e, 0xc6, 0x68, 0xe5],
    [0x02, 0xa1, 0xfc, 0xc1, 0x47, 0xae, 0x3d, 0x19],
    [0xa4, 0x55, 0x87, 0x5a, 0x58, 0xdb, 0x9e, 0x03],
];
const RS_POLYNOMIAL: u8 = 0x4d;

/// A permutation q. The tables are numbers that are shifted, not memory that is indexed.
fn q(which: usize, x: u8) -> u8 {
    let [t0, t1, t2, t3] = Q[which];
    let entry = |table: u64, n: u8| (table >> (4 * n)).to_le_bytes()[0] & 15;
    let mix = |a: u8, b: u8| (a ^ b, (a ^ (b >> 1 | b << 3) ^ (a << 3)) & 15);
    let (a, b) = mix(x >> 4, x & 15);
    let (a, b) = mix(entry(t0, a), entry(t1, b));
    entry(t3, b) << 4 | entry(t2, a)
}

/// A product in GF(2^8). Its branches depend on `factor` only.
pub(super) const fn times(factor: u8, x: u8, polynomial: u8) -> u8 {
    let (mut product, mut x, mut bit) = (0, x, 0);
    while bit < 8 {
        if factor >> bit & 1 == 1 {
            product ^= x;
        }
        x = (x << 1) ^ ((x >> 7) * polynomial);
        bit += 1;
    }
    product
}

/// What an S-box that depends on `list`, words of the key or of S, makes of byte `n` of the
/// argument of h (section 4.3.2).
fn substituted(n: usize, x: u8, list: &[[u8; 4]]) -> u8 {
    let order = &ORDER[n][4 - list.len()..];
    let mut y = x;
    for (which, word) in order.iter().zip(list.iter().rev()) {
        y = q(*which, y) ^ word[n];
    }
    q(order[list.len()], y)
}

/// h of a word of four equal bytes.
fn h(x: u8, list: &[[u8; 4]]) -> u32 {
    (0..4).fold(0, |sum, n| {
        let y = substituted(n, x, list);
        sum ^ u32::from_le_bytes(MDS[n].map(|factor| times(factor, y, MDS_POLYNOMIAL)))
    })
}

impl Twofish {
    fn expand(&mut self, key: &[u8]) {
        let (parts, _) = key.as_chunks::<8>();
        let count = parts.len();
        let mut lists = [[[0; 4]; 4]; 3];
        let [even, odd, s] = &mut lists;
        for (n, part) in parts.iter().enumerate() {
            even[n].copy_from_slice(&part[..4]);
            odd[n].copy_from_slice(&part[4..]);
            // S is in reverse order.
            for (byte, row) in s[count - 1 - n].iter_mut().zip(RS) {
                let terms = row.iter().zip(part);
                *byte = terms.fold(0, |sum, (a, b)| sum ^ times(*a, *b, RS_POLYNOMIAL));
            }
        }
        for (pair, n) in self
            .keys
            .as_chunks_mut::<2>()
            .0
            .iter_mut()
            .zip((0..).step_by(2))
        {
            let a = h(n, &even[..count]);
            let b = h(n + 1, &odd[..count]).rotate_left(8);
            let first = a.wrapping_add(b);
            *pair = [first, first.wrapping_add(b).rotate_left(9)];
        }
        for (n, entries) in self.boxes.iter_mut().enumerate() {
            for (entry, x) in entries.iter_mut().zip(0..=255) {
                *entry = substituted(n, x, &s[..count]);
            }
        }
        lists.zeroize();
    }
}

/// The parts of a key for other rounds.
#[cfg(target_arch = "x86_64")]
impl Twofish {
    pub(super) fn boxes(&self) -> &[[u8; 256]; 4] {
        &self.boxes
    }

    pub(super) fn keys(&self) -> &[u32; 40] {
        &self.keys
    }
}

// --- rounds (section 4.1) ------------------------------------------------------------------------

/// The products of the columns of MDS.
static PRODUCTS: [[u32; 256]; 4] = {
    let mut products = [[0; 256]; 4];
    let mut n = 0;
    while n < 4 {
        let (mut y, mut place) = (0_u8, 0);
        while place < 256 {
            let [a, b, c, d] = MDS[n];
            products[n][place] = u32::from_le_bytes([
                times(a, y, MDS_POLYNOMIAL),
                times(b, y, MDS_POLYNOMIAL),
                times(c, y, MDS_POLYNOMIAL),
                times(d, y, MDS_POLYNOMIAL),
            ]);
            (y, place) = (y.wrapping_add(1), place + 1);
        }
        n += 1;
    }
    products
};

impl Twofish {
    #[inline(always)]
    fn g(&self, x: u32) -> u32 {
        let bytes = x.to_le_bytes();
        (0..4).fold(0, |sum, n| {
            let y = self.boxes[n][usize::from(bytes[n])];
            sum ^ PRODUCTS[n][usize::from(y)]
        })
    }

    /// The two values that round `n` adds to the other half.
    #[inline(always)]
    fn f(&self, n: usize, a: u32, b: u32) -> (u32, u32) {
        let (t0, t1) = (self.g(a), self.g(b.rotate_left(8)));
        let sum = t0.wrapping_add(t1);
        (
            sum.wrapping_add(self.keys[8 + 2 * n]),
            sum.wrapping_add(t1).wrapping_add(self.keys[9 + 2 * n]),
        )
    }

    #[inline(always)]
    fn encrypt<const N: usize>(&self, blocks: &mut [[u32; 4]; N]) {
        for block in blocks.iter_mut() {
            *block = std::array::from_fn(|n| block[n] ^ self.keys[n]);
        }
        for n in 0..16 {
            for block in blocks.iter_mut() {
                let [a, b, c, d] = *block;
                let (e, f) = self.f(n, a, b);
                *block = [(c ^ e).rotate_right(1), d.rotate_left(1) ^ f, a, b];
            }
        }
        for block in blocks.iter_mut() {
            let [a, b, c, d] = *block;
            let last = [c, d, a, b];
            *block = std::array::from_fn(|n| last[n] ^ self.keys[4 + n]);
        }
    }

    #[inline(always)]
    fn decrypt<const N: usize>(&self, blocks: &mut [[u32; 4]; N]) {
        for block in blocks.iter_mut() {
            let [a, b, c, d] = std::array::from_fn(|n| block[n] ^ self.keys[4 + n]);
            *block = [c, d, a, b];
        }
        for n in (0..16).rev() {
            for block in blocks.iter_mut() {
                let [c, d, a, b] = *block;
                let (e, f) = self.f(n, a, b);
                *block = [a, b, c.rotate_left(1) ^ e, (d ^ f).rotate_right(1)];
            }
        }
        for block in blocks.iter_mut() {
            *block = std::array::from_fn(|n| block[n] ^ self.keys[n]);
        }
    }
}

// --- as a block cipher of the crates -------------------------------------------------------------

impl KeySizeUser for Twofish {
    type KeySize = U32;
}

impl KeyInit for Twofish {
    fn new(key: &Key<Self>) -> Self {
        Self::new_from_slice(key).expect("256 bits")
    }

    /// Also takes keys of 128 and 192 bits.
    fn new_from_slice(key: &[u8]) -> Result<Self, InvalidLength> {
        if !matches!(key.len(), 16 | 24 | 32) {
            return Err(InvalidLength);
        }
        let mut twofish = Self {
            boxes: [[0; 256]; 4],
            keys: [0; 40],
        };
        twofish.expand(key);
        Ok(twofish)
    }
}

impl Drop for Twofish {
    fn drop(&mut self) {
        self.boxes.zeroize();
        self.keys.zeroize();
    }
}

impl BlockSizeUser for Twofish {
    type BlockSize = U16;
}

impl ParBlocksSizeUser for Twofish {
    type ParBlocksSize = Width;
}

impl BlockCipherEncrypt for Twofish {
    fn encrypt_with_backend(&self, f: impl BlockCipherEncClosure<BlockSize = U16>) {
        f.call(self);
    }
}

impl BlockCipherDecrypt for Twofish {
    fn decrypt_with_backend(&self, f: impl BlockCipherDecClosure<BlockSize = U16>) {
        f.call(self);
    }
}

impl BlockCipherEncBackend for Twofish {
    #[inline(always)]
    fn encrypt_block(&self, mut block: InOut<'_, '_, Block<Self>>) {
        let mut words = [words(block.get_in())];
        self.encrypt(&mut words);
        *block.get_out() = bytes(words[0]);
    }

    #[inline(always)]
    fn encrypt_par_blocks(&self, mut blocks: InOut<'_, '_, ParBlocks<Self>>) {
        let mut all = blocks.get_in().0.each_ref().map(words);
        self.encrypt(&mut all);
        blocks.get_out().0 = all.map(bytes);
    }
}

impl BlockCipherDecBackend for Twofish {
    #[inline(always)]
    fn decrypt_block(&self, mut block: InOut<'_, '_, Block<Self>>) {
        let mut words = [words(block.get_in())];
        self.decrypt(&mut words);
        *block.get_out() = bytes(words[0]);
    }

    #[inline(always)]
    fn decrypt_par_blocks(&self, mut blocks: InOut<'_, '_, ParBlocks<Self>>) {
        let mut all = blocks.get_in().0.each_ref().map(words);
        self.decrypt(&mut all);
        blocks.get_out().0 = all.map(bytes);
    }
}

#[inline(always)]
fn words(block: &Block<Twofish>) -> [u32; 4] {
    let (words, _) = block.0.as_chunks::<4>();
    std::array::from_fn(|n| u32::from_le_bytes(words[n]))
}

#[inline(always)]
fn bytes(words: [u32; 4]) -> Block<Twofish> {
    let mut block = Block::<Twofish>::default();
    let (bytes, _) = block.0.as_chunks_mut::<4>();
    bytes
        .iter_mut()
        .zip(words)
        .for_each(|(bytes, word)| *bytes = word.to_le_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published test vectors with variable lengths of keys (ECB_TBL), I=1 to 49: each
    /// plaintext is the ciphertext before, and the key is made of earlier ciphertexts.
    #[test]
    fn it_is_that_of_its_authors() {
        for (size, last) in [
            (16, "5d9d4eeffa9151575524f115815a12e0"),
            (24, "e75449212beef9f4a390bd860a640941"),
            (32, "37fe26ff1cf66175f5ddf4c33b97a205"),
        ] {
            let (mut key, mut block) = (vec![0; size], Block::<Twofish>::default());
            for _ in 0..49 {
                let plain = block;
                let twofish = Twofish::new_from_slice(&key).unwrap();
                BlockCipherEncrypt::encrypt_block(&twofish, &mut block);
                let mut back = block;
                BlockCipherDecrypt::decrypt_block(&twofish, &mut back);
                assert_eq!(back, plain);
                key.copy_within(0..size - 16, 16);
                key[..16].copy_from_slice(&plain);
            }
            assert_eq!(hex::encode(block), last);
        }
    }
}
