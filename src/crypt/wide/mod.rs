//! Serpent, Twofish and Camellia for AVX2: 32 blocks at once, without a table that is indexed by
//! data or keys.
//!
//! Serpent works on the same bit of many blocks, as it was designed to. The S-boxes of the other
//! two are looked up by reading the whole table each time (`lookup.rs`). On other CPUs
//! [`Fastest`] uses a cipher that takes one block at a time.

#![allow(unsafe_code)] // loads, stores, and calls of functions for a detected CPU
#![allow(clippy::needless_range_loop)] // one index for several arrays

mod camellia;
mod lookup;
mod registers;
mod serpent;
mod twofish;

use cipher::consts::{U16, U32};
use cipher::inout::InOutBuf;
use cipher::{
    Array, BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, InOut, InvalidLength, Key, KeyInit,
    KeySizeUser, ParBlocks, ParBlocksSizeUser,
};

pub(super) use camellia::Camellia;
pub(super) use serpent::Serpent;
pub(super) use twofish::Twofish;

/// The size of a block in bytes.
const BLOCK: usize = 16;
/// The number of blocks that are processed at once.
const WIDTH: usize = 32;

type Blocks = [[u8; BLOCK]; WIDTH];
/// A block as the crates have it.
type Bytes = Array<u8, U16>;

/// Proof that this CPU has AVX2. Only [`detect`](Self::detect) makes one.
#[derive(Clone, Copy)]
pub(super) struct Token(());

impl Token {
    fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

/// Proof that this CPU has AVX-512. Only [`detect`](Self::detect) makes one.
#[derive(Clone, Copy)]
struct Token512(());

impl Token512 {
    fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

/// A cipher with its key that processes many blocks at once.
pub(super) trait Wide: Sized + Send + Sync + 'static {
    /// The same cipher for other CPUs.
    type Other: KeyInit
        + BlockCipherEncrypt
        + BlockCipherDecrypt
        + BlockSizeUser<BlockSize = U16>
        + Send
        + Sync
        + 'static;
    /// Expands a key, which `other` has too.
    fn new(token: Token, key: &[u8], other: &Self::Other) -> Self;
    fn encrypt(&self, blocks: &mut Blocks);
    fn decrypt(&self, blocks: &mut Blocks);
}

/// A cipher for this CPU: the wide one if it has AVX2, with the other one for single blocks.
pub(super) struct Fastest<W: Wide> {
    wide: Option<W>,
    other: W::Other,
}

impl<W: Wide> KeySizeUser for Fastest<W> {
    type KeySize = <W::Other as KeySizeUser>::KeySize;
}

impl<W: Wide> KeyInit for Fastest<W> {
    fn new(key: &Key<Self>) -> Self {
        Self::new_from_slice(key).expect("the size of a key")
    }

    fn new_from_slice(key: &[u8]) -> Result<Self, InvalidLength> {
        let other = W::Other::new_from_slice(key)?;
        let wide = Token::detect().map(|token| W::new(token, key, &other));
        Ok(Self { wide, other })
    }
}

impl<W: Wide> BlockSizeUser for Fastest<W> {
    type BlockSize = U16;
}

impl<W: Wide> BlockCipherEncrypt for Fastest<W> {
    fn encrypt_with_backend(&self, f: impl BlockCipherEncClosure<BlockSize = U16>) {
        match &self.wide {
            Some(wide) => f.call(&Backend {
                wide,
                other: &self.other,
            }),
            None => self.other.encrypt_with_backend(f),
        }
    }
}

impl<W: Wide> BlockCipherDecrypt for Fastest<W> {
    fn decrypt_with_backend(&self, f: impl BlockCipherDecClosure<BlockSize = U16>) {
        match &self.wide {
            Some(wide) => f.call(&Backend {
                wide,
                other: &self.other,
            }),
            None => self.other.decrypt_with_backend(f),
        }
    }
}

/// A cipher as the crates want it. Only a block that has to be processed before the next one is
/// there, as in CBC, is processed by the other cipher: with a batch for each block, CBC would be
/// slow.
struct Backend<'a, W: Wide> {
    wide: &'a W,
    other: &'a W::Other,
}

impl<W: Wide> BlockSizeUser for Backend<'_, W> {
    type BlockSize = U16;
}

impl<W: Wide> ParBlocksSizeUser for Backend<'_, W> {
    type ParBlocksSize = U32;
}

impl<W: Wide> BlockCipherEncBackend for Backend<'_, W> {
    fn encrypt_block(&self, block: InOut<'_, '_, Bytes>) {
        self.other.encrypt_block_inout(block);
    }

    fn encrypt_par_blocks(&self, mut all: InOut<'_, '_, ParBlocks<Self>>) {
        let mut blocks = together(all.get_in());
        self.wide.encrypt(&mut blocks);
        put(&blocks, all.get_out());
    }

    fn encrypt_tail_blocks(&self, mut few: InOutBuf<'_, '_, Bytes>) {
        let mut blocks = together(few.get_in());
        self.wide.encrypt(&mut blocks);
        put(&blocks, few.get_out());
    }
}

impl<W: Wide> BlockCipherDecBackend for Backend<'_, W> {
    fn decrypt_block(&self, block: InOut<'_, '_, Bytes>) {
        self.other.decrypt_block_inout(block);
    }

    fn decrypt_par_blocks(&self, mut all: InOut<'_, '_, ParBlocks<Self>>) {
        let mut blocks = together(all.get_in());
        self.wide.decrypt(&mut blocks);
        put(&blocks, all.get_out());
    }

    fn decrypt_tail_blocks(&self, mut few: InOutBuf<'_, '_, Bytes>) {
        let mut blocks = together(few.get_in());
        self.wide.decrypt(&mut blocks);
        put(&blocks, few.get_out());
    }
}

/// Copies at most [`WIDTH`] blocks. Fewer of them take as long.
fn together<'a>(given: impl IntoIterator<Item = &'a Bytes>) -> Blocks {
    let mut blocks = [[0; BLOCK]; WIDTH];
    for (block, given) in blocks.iter_mut().zip(given) {
        *block = given.0;
    }
    blocks
}

fn put<'a>(blocks: &Blocks, into: impl IntoIterator<Item = &'a mut Bytes>) {
    for (block, into) in blocks.iter().zip(into) {
        into.0 = *block;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The crates of the ciphers give the same bytes, for each number of blocks in a batch.
    fn equals<W: Wide, C>(key_size: usize)
    where
        C: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
    {
        let numbers = (1_u32..).map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()[3]);
        let key: Vec<u8> = numbers.clone().take(key_size).collect();
        let cipher = Fastest::<W>::new_from_slice(&key).unwrap();
        let other = C::new_from_slice(&key).unwrap();
        let bytes: Vec<u8> = numbers.skip(99).take(70 * BLOCK).collect();
        for count in [1, 2, 31, 32, 33, 70] {
            let plain: Vec<Bytes> = bytes.as_chunks().0[..count]
                .iter()
                .copied()
                .map(Array)
                .collect();
            let (mut turned, mut expected) = (plain.clone(), plain.clone());
            cipher.encrypt_blocks(&mut turned);
            other.encrypt_blocks(&mut expected);
            assert_eq!(turned, expected, "{key_size} {count}");
            cipher.decrypt_blocks(&mut turned);
            assert_eq!(turned, plain, "{key_size} {count}");
        }
    }

    #[test]
    fn many_blocks_are_as_many_single_ones() {
        for key_size in [16, 24, 32] {
            equals::<Serpent, ::serpent::Serpent>(key_size);
            equals::<Twofish, ::twofish::Twofish>(key_size);
        }
        equals::<Camellia<::camellia::Camellia128>, ::camellia::Camellia128>(16);
        equals::<Camellia<::camellia::Camellia192>, ::camellia::Camellia192>(24);
        equals::<Camellia<::camellia::Camellia256>, ::camellia::Camellia256>(32);
    }
}
