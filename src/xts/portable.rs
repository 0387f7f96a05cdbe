//! The kernel for every machine: the `aes` crate, with full batches for its widest instructions.
//!
//! The crate passes its backend to a closure that is compiled for the available instructions. The
//! backend states how many blocks it processes at once. This kernel makes one pass over the data in
//! batches of that size. For each batch it computes the tweaks, adds them, encrypts the blocks and
//! adds the tweaks again, while the batch is in the L1 cache. A batch may cross the boundary of a
//! sector, and the first tweaks of many sectors are encrypted together.

use aes::{Aes128, Aes128Enc, Aes192, Aes192Enc, Aes256, Aes256Enc, Block};
use cipher::array::Array;
use cipher::consts::U16;
use cipher::{
    BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit, ParBlocks,
};

use super::error::XtsError;
use super::keyed::{Keyed, OutOfPlace};
use super::memory::Memory;
use super::tweak::{BLOCK, Tweaks};

/// The key schedules, by key size.
pub(super) enum Xts<M: Memory> {
    Aes128(M::Held<Keys<Aes128, Aes128Enc>>),
    Aes192(M::Held<Keys<Aes192, Aes192Enc>>),
    Aes256(M::Held<Keys<Aes256, Aes256Enc>>),
}

impl<M: Memory> Xts<M> {
    pub(super) fn new<E: From<XtsError> + From<M::Error>>(key: &[u8]) -> Result<Self, E> {
        match key.len() {
            32 => Ok(Self::Aes128(M::hold(Keys::new(key)?)?)),
            48 => Ok(Self::Aes192(M::hold(Keys::new(key)?)?)),
            64 => Ok(Self::Aes256(M::hold(Keys::new(key)?)?)),
            len => Err(XtsError::KeySize(len).into()),
        }
    }
}

impl<M: Memory> Keyed for Xts<M> {
    fn takes(&self, sector_size: usize) -> bool {
        sector_size.is_multiple_of(BLOCK)
    }

    fn encrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        match self {
            Self::Aes128(keys) => keys.encrypt(tweaks, sector_size, data),
            Self::Aes192(keys) => keys.encrypt(tweaks, sector_size, data),
            Self::Aes256(keys) => keys.encrypt(tweaks, sector_size, data),
        }
    }

    fn decrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        match self {
            Self::Aes128(keys) => keys.decrypt(tweaks, sector_size, data),
            Self::Aes192(keys) => keys.decrypt(tweaks, sector_size, data),
            Self::Aes256(keys) => keys.decrypt(tweaks, sector_size, data),
        }
    }

    /// The crate takes references, which the memory of a guest must not have.
    fn out_of_place(&self) -> Option<&dyn OutOfPlace> {
        None
    }
}

/// XTS with any cipher of 16-byte blocks, `D` for the data and `T` for the tweaks.
pub(crate) struct Keys<D, T> {
    data: D,
    tweak: T,
}

/// The number of sectors whose first tweaks are encrypted together: enough to fill the widest
/// instructions.
const SECTORS: usize = 64;

impl<D, T> Keys<D, T>
where
    D: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
    T: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    /// # Errors
    /// Returns [`XtsError::KeySize`] if the cipher has no keys of half this length.
    pub(crate) fn new(key: &[u8]) -> Result<Self, XtsError> {
        let (data, tweak) = key.split_at(key.len() / 2);
        let wrong = |_| XtsError::KeySize(key.len());
        Ok(Self {
            data: D::new_from_slice(data).map_err(wrong)?,
            tweak: T::new_from_slice(tweak).map_err(wrong)?,
        })
    }

    pub(crate) fn encrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        self.encrypt_with(|ivs| number(ivs, &mut tweaks), sector_size, data);
    }

    pub(crate) fn decrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        self.decrypt_with(|ivs| number(ivs, &mut tweaks), sector_size, data);
    }

    /// As [`encrypt`](Self::encrypt). `fill` gives the IVs of the next sectors, which become their
    /// first tweaks when the tweak key encrypts them.
    pub(crate) fn encrypt_with(
        &self,
        fill: impl FnMut(&mut [Block]),
        sector_size: usize,
        data: &mut [u8],
    ) {
        self.each_run(fill, sector_size, data, |run| {
            self.data.encrypt_with_backend(run)
        });
    }

    /// The reverse of [`encrypt_with`](Self::encrypt_with).
    pub(crate) fn decrypt_with(
        &self,
        fill: impl FnMut(&mut [Block]),
        sector_size: usize,
        data: &mut [u8],
    ) {
        self.each_run(fill, sector_size, data, |run| {
            self.data.decrypt_with_backend(run)
        });
    }

    fn each_run(
        &self,
        mut fill: impl FnMut(&mut [Block]),
        sector_size: usize,
        data: &mut [u8],
        mut process: impl FnMut(Run<'_>),
    ) {
        for data in data.chunks_mut(sector_size.saturating_mul(SECTORS)) {
            let mut firsts = [Block::default(); SECTORS];
            let firsts = &mut firsts[..data.len() / sector_size];
            fill(firsts);
            self.tweak.encrypt_blocks(firsts);
            let (blocks, _) = Array::slice_as_chunks_mut(data);
            process(Run {
                blocks,
                tweaks: Powers::new(firsts, sector_size / BLOCK),
            });
        }
    }
}

/// The numbers of the next sectors as IVs.
fn number(ivs: &mut [Block], tweaks: &mut Tweaks) {
    for iv in ivs {
        *iv = Array(tweaks.next_tweak());
    }
}

/// A run of sectors with their tweaks: the closure that the crate calls with its backend.
struct Run<'a> {
    blocks: &'a mut [Block],
    tweaks: Powers<'a>,
}

impl BlockSizeUser for Run<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Run<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(mut self, backend: &B) {
        let (batches, tail) = ParBlocks::<B>::slice_as_chunks_mut(self.blocks);
        for batch in batches {
            let mut tweaks = ParBlocks::<B>::default();
            self.tweaks.fill(&mut tweaks);
            mix(batch, &tweaks);
            backend.encrypt_par_blocks_inplace(batch);
            mix(batch, &tweaks);
        }
        let mut tweaks = ParBlocks::<B>::default();
        let tweaks = &mut tweaks[..tail.len()];
        self.tweaks.fill(tweaks);
        mix(tail, tweaks);
        backend.encrypt_tail_blocks_inplace(tail);
        mix(tail, tweaks);
    }
}

impl BlockCipherDecClosure for Run<'_> {
    #[inline(always)]
    fn call<B: BlockCipherDecBackend<BlockSize = U16>>(mut self, backend: &B) {
        let (batches, tail) = ParBlocks::<B>::slice_as_chunks_mut(self.blocks);
        for batch in batches {
            let mut tweaks = ParBlocks::<B>::default();
            self.tweaks.fill(&mut tweaks);
            mix(batch, &tweaks);
            backend.decrypt_par_blocks_inplace(batch);
            mix(batch, &tweaks);
        }
        let mut tweaks = ParBlocks::<B>::default();
        let tweaks = &mut tweaks[..tail.len()];
        self.tweaks.fill(tweaks);
        mix(tail, tweaks);
        backend.decrypt_tail_blocks_inplace(tail);
        mix(tail, tweaks);
    }
}

#[inline(always)]
fn mix(blocks: &mut [Block], tweaks: &[Block]) {
    for (block, tweak) in blocks.iter_mut().zip(tweaks) {
        let mixed = u128::from_ne_bytes(block.0) ^ u128::from_ne_bytes(tweak.0);
        block.0 = mixed.to_ne_bytes();
    }
}

/// The tweaks of consecutive blocks. Each sector starts with its own first tweak, and each
/// following tweak is the one before it times x.
struct Powers<'a> {
    firsts: std::slice::Iter<'a, Block>,
    next: u128,
    left: usize,
    blocks_in_sector: usize,
}

impl<'a> Powers<'a> {
    fn new(firsts: &'a [Block], blocks_in_sector: usize) -> Self {
        Self {
            firsts: firsts.iter(),
            next: 0,
            left: 0,
            blocks_in_sector,
        }
    }

    #[inline(always)]
    fn fill(&mut self, mut tweaks: &mut [Block]) {
        while !tweaks.is_empty() {
            if self.left == 0 {
                let Some(first) = self.firsts.next() else {
                    return;
                };
                self.next = u128::from_le_bytes(first.0);
                self.left = self.blocks_in_sector;
            }
            let (now, later) = tweaks.split_at_mut(self.left.min(tweaks.len()));
            self.left -= now.len();
            self.next = fill_powers(self.next, now);
            tweaks = later;
        }
    }
}

const LANES: usize = 8;

/// Fills `tweaks` with `next`, `next` x, `next` x² and so on, and returns the tweak after the last.
///
/// Eight consecutive tweaks are kept in lanes and advance by x^8 each time, so that no tweak
/// depends on the one immediately before it.
#[inline(always)]
fn fill_powers(mut next: u128, tweaks: &mut [Block]) -> u128 {
    let (groups, tail) = tweaks.as_chunks_mut::<LANES>();
    if !groups.is_empty() {
        let mut lanes = [0; LANES];
        for lane in &mut lanes {
            *lane = next;
            next = times_x(next);
        }
        let mut low = lanes.map(|lane| halves(lane).0);
        let mut high = lanes.map(|lane| halves(lane).1);
        for group in groups {
            for lane in 0..LANES {
                let tweak = u128::from(low[lane]) | u128::from(high[lane]) << 64;
                group[lane].0 = tweak.to_le_bytes();
            }
            for lane in 0..LANES {
                (low[lane], high[lane]) = times_x8(low[lane], high[lane]);
            }
        }
        next = u128::from(low[0]) | u128::from(high[0]) << 64;
    }
    for tweak in tail {
        tweak.0 = next.to_le_bytes();
        next = times_x(next);
    }
    next
}

/// The low and the high half of a tweak.
#[inline(always)]
fn halves(tweak: u128) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, rest @ ..] = tweak.to_le_bytes();
    (
        u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        u64::from_le_bytes(rest),
    )
}

/// Multiplies by x in GF(2^128), modulo x^128 + x^7 + x^2 + x + 1.
#[inline(always)]
fn times_x(tweak: u128) -> u128 {
    let overflow = (tweak.cast_signed() >> 127).cast_unsigned();
    (tweak << 1) ^ (overflow & 0x87)
}

/// Multiplies by x^8. Takes and returns the low and the high half.
#[inline(always)]
fn times_x8(low: u64, high: u64) -> (u64, u64) {
    let overflow = high >> 56;
    let reduced = overflow ^ (overflow << 1) ^ (overflow << 2) ^ (overflow << 7);
    ((low << 8) ^ reduced, (high << 8) | (low >> 56))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_x8_equals_eight_times_x() {
        let mut number = 0x0123_4567_89ab_cdef_8421_8421_8421_8421_u128;
        for _ in 0..1000 {
            let (low, high) = halves(number);
            let (low, high) = times_x8(low, high);
            let eight = (0..8).fold(number, |number, _| times_x(number));
            assert_eq!(u128::from(low) | u128::from(high) << 64, eight);
            number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        }
    }

    #[test]
    fn powers_do_not_depend_on_the_length_of_the_pieces() {
        let firsts: Vec<_> = (1u8..=5)
            .map(|n| Array([n.wrapping_mul(0x5b); BLOCK]))
            .collect();
        for blocks_in_sector in [1, 7, 8, 31, 32, 256] {
            let mut expected = Vec::new();
            for first in &firsts {
                let mut tweak = u128::from_le_bytes(first.0);
                for _ in 0..blocks_in_sector {
                    expected.push(Array(tweak.to_le_bytes()));
                    tweak = times_x(tweak);
                }
            }
            for piece in [1, 3, 8, 30, 64] {
                let mut tweaks = vec![Block::default(); expected.len()];
                let mut powers = Powers::new(&firsts, blocks_in_sector);
                tweaks
                    .chunks_mut(piece)
                    .for_each(|piece| powers.fill(piece));
                assert_eq!(tweaks, expected);
            }
        }
    }
}
