//! CBC, which starts again in each sector.
//!
//! A block is added to the next one before that is encrypted, so a sector has only one block in
//! flight. Sectors do not depend on each other, so several are encrypted at the same time.

use ::cbc::cipher::{
    Block, BlockCipherEncBackend, BlockCipherEncClosure, BlockModeDecrypt, BlockSizeUser,
    InnerIvInit, ParBlocks, array::Array,
};
use luksmith_formats::IvGenerator;

use super::modes::{Both, Ivs, Keyed, OneWay, SectorCipher, locked};
use crate::xts::Tweaks;

/// How a cipher takes several blocks at the same time.
#[derive(Clone, Copy)]
pub(super) enum Several {
    /// As blocks that do not wait for each other, since the CPU has instructions for them.
    Alone,
    /// As one batch.
    Batch,
}

pub(super) fn cbc<C, E>(key: &[u8], iv: IvGenerator, several: Several) -> Keyed
where
    C: Both,
    E: OneWay + BlockSizeUser<BlockSize = <C as BlockSizeUser>::BlockSize>,
{
    Some(locked(Cbc {
        data: C::new_from_slice(key).ok()?,
        ivs: Ivs::<E>::new(key, iv)?,
        several,
    }))
}

struct Cbc<C, E> {
    data: C,
    ivs: Ivs<E>,
    several: Several,
}

/// The most sectors at the same time: as many as any batch has blocks.
const SECTORS: usize = 64;

impl<C, E> Cbc<C, E>
where
    C: Both,
    E: OneWay + BlockSizeUser<BlockSize = <C as BlockSizeUser>::BlockSize>,
{
    /// Calls `turn` with runs of sectors and their IVs.
    fn each_run(
        &self,
        mut tweaks: Tweaks,
        sector_size: usize,
        data: &mut [u8],
        mut turn: impl FnMut(&mut [u8], &mut [Block<C>]),
    ) {
        let mut ivs: [Block<C>; SECTORS] = std::array::from_fn(|_| Block::<C>::default());
        for data in data.chunks_mut(sector_size * SECTORS) {
            let ivs = &mut ivs[..data.len() / sector_size];
            self.ivs.fill(&mut tweaks, ivs);
            turn(data, ivs);
        }
    }
}

impl<C, E> SectorCipher for Cbc<C, E>
where
    C: Both,
    E: OneWay + BlockSizeUser<BlockSize = <C as BlockSizeUser>::BlockSize>,
{
    fn encrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        self.each_run(tweaks, sector_size, data, |data, chains| {
            self.data.encrypt_with_backend(Run::<C> {
                data,
                sector_size,
                chains,
                several: self.several,
            });
        });
    }

    fn decrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        self.each_run(tweaks, sector_size, data, |data, ivs| {
            for (sector, iv) in data.chunks_exact_mut(sector_size).zip(ivs) {
                let (blocks, _) = Array::slice_as_chunks_mut(sector);
                ::cbc::Decryptor::inner_iv_init(&self.data, iv).decrypt_blocks(blocks);
            }
        });
    }
}

/// Sectors to encrypt at the same time. The closure that the crate calls with its backend.
struct Run<'a, C: BlockSizeUser> {
    data: &'a mut [u8],
    sector_size: usize,
    /// What is added to the next block of each sector: first the IV, then the block before.
    chains: &'a mut [Block<C>],
    several: Several,
}

impl<C: BlockSizeUser> BlockSizeUser for Run<'_, C> {
    type BlockSize = C::BlockSize;
}

impl<C: BlockSizeUser> BlockCipherEncClosure for Run<'_, C> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = C::BlockSize>>(self, backend: &B) {
        match self.several {
            Several::Alone => {
                let rest = self.alone::<8, B>(backend);
                let rest = rest.alone::<4, B>(backend);
                let rest = rest.alone::<2, B>(backend);
                rest.alone::<1, B>(backend);
            }
            Several::Batch => self.in_batches(backend),
        }
    }
}

/// A batch of fewer blocks takes longer than the blocks one after the other.
const FEW: usize = 6;

impl<C: BlockSizeUser> Run<'_, C> {
    /// Encrypts `N` sectors at the same time, as often as there are so many, and returns the
    /// others.
    #[inline(always)]
    fn alone<const N: usize, B>(self, backend: &B) -> Self
    where
        B: BlockCipherEncBackend<BlockSize = C::BlockSize>,
    {
        let size = self.sector_size;
        let many = self.chains.len() / N * N;
        let (chains, few_chains) = self.chains.split_at_mut(many);
        let (data, few) = self.data.split_at_mut(many * size);
        for (data, chains) in data
            .chunks_exact_mut(N * size)
            .zip(chains.as_chunks_mut::<N>().0)
        {
            let mut sectors = data.chunks_exact_mut(size);
            let mut sectors: [_; N] = std::array::from_fn(|_| {
                let sector = sectors.next().unwrap_or_default();
                Array::<u8, C::BlockSize>::slice_as_chunks_mut(sector)
                    .0
                    .iter_mut()
            });
            // Local, so that they are in registers.
            let mut chains = chains.clone();
            for _ in 0..size / C::block_size() {
                for n in 0..N {
                    let Some(block) = sectors[n].next() else {
                        break;
                    };
                    add(&mut chains[n], block);
                    backend.encrypt_block_inplace(&mut chains[n]);
                    block.copy_from_slice(&chains[n]);
                }
            }
        }
        Self {
            data: few,
            chains: few_chains,
            ..self
        }
    }

    #[inline(always)]
    fn in_batches<B>(self, backend: &B)
    where
        B: BlockCipherEncBackend<BlockSize = C::BlockSize>,
    {
        let size = self.sector_size;
        for at in (0..size).step_by(C::block_size()) {
            for (chain, sector) in self.chains.iter_mut().zip(self.data.chunks_exact(size)) {
                add(chain, &sector[at..][..C::block_size()]);
            }
            let (whole, rest) = ParBlocks::<B>::slice_as_chunks_mut(self.chains);
            for blocks in whole {
                backend.encrypt_par_blocks_inplace(blocks);
            }
            match rest.len() {
                0 => {}
                1..FEW => rest
                    .iter_mut()
                    .for_each(|block| backend.encrypt_block_inplace(block)),
                _ => backend.encrypt_tail_blocks_inplace(rest),
            }
            for (chain, sector) in self.chains.iter().zip(self.data.chunks_exact_mut(size)) {
                sector[at..][..C::block_size()].copy_from_slice(chain);
            }
        }
    }
}

#[inline(always)]
fn add(chain: &mut [u8], block: &[u8]) {
    for (byte, other) in chain.iter_mut().zip(block) {
        *byte ^= other;
    }
}
