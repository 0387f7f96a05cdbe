//! XTS and CBC with any block cipher that has 16-byte blocks, sector by sector.

use ::cbc::cipher::{
    Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt,
    BlockSizeUser, InnerIvInit, KeyInit, array::Array, consts::U16,
};
use sha2::{Digest, Sha256};
#[cfg(feature = "ciphers")]
use xts_mode::Xts128;
use zeroize::Zeroize;

use crate::secret::{LockError, LockedBox};
use crate::xts::{Tweaks, Xts};

/// A cipher with its key in locked memory. `None` if the cipher has no keys of this length.
pub(super) type Keyed = Option<Result<Box<dyn SectorCipher>, LockError>>;

/// Encrypts and decrypts whole sectors in place. The caller passes data that is a whole number of
/// sectors, and sectors that are a whole number of blocks.
pub(super) trait SectorCipher: Send + Sync {
    fn encrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]);
    fn decrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]);
}

impl SectorCipher for Xts {
    fn encrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        self.encrypt(tweaks, sector_size, data)
            .expect("whole sectors");
    }

    fn decrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        self.decrypt(tweaks, sector_size, data)
            .expect("whole sectors");
    }
}

#[cfg(feature = "ciphers")]
pub(super) fn xts<C>(key: &[u8]) -> Keyed
where
    C: Both + Send + Sync + 'static,
{
    let (data, tweak) = key.split_at(key.len() / 2);
    let (data, tweak) = (
        C::new_from_slice(data).ok()?,
        C::new_from_slice(tweak).ok()?,
    );
    Some(locked(OtherXts(Xts128::new(data, tweak))))
}

fn locked<C: SectorCipher + 'static>(cipher: C) -> Result<Box<dyn SectorCipher>, LockError> {
    Ok(Box::new(LockedBox::new(cipher)?))
}

impl<C: SectorCipher> SectorCipher for LockedBox<C> {
    fn encrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        (**self).encrypt(tweaks, sector_size, data);
    }

    fn decrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        (**self).decrypt(tweaks, sector_size, data);
    }
}

/// XTS with any cipher, block by block.
#[cfg(feature = "ciphers")]
struct OtherXts<C>(Xts128<C>);

#[cfg(feature = "ciphers")]
impl<C: Both + Send + Sync> SectorCipher for OtherXts<C> {
    fn encrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        for sector in data.chunks_exact_mut(sector_size) {
            self.0.encrypt_sector(sector, Array(tweaks.next_tweak()));
        }
    }

    fn decrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        for sector in data.chunks_exact_mut(sector_size) {
            self.0.decrypt_sector(sector, Array(tweaks.next_tweak()));
        }
    }
}

pub(super) fn cbc<C, E>(key: &[u8], essiv: bool) -> Keyed
where
    C: Both + Send + Sync + 'static,
    E: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + Send + Sync + 'static,
{
    let data = C::new_from_slice(key).ok()?;
    let iv = if essiv {
        Some(essiv_cipher(key)?)
    } else {
        None
    };
    Some(locked(Cbc::<C, E> { data, iv }))
}

/// The cipher of ESSIV. Its key is the SHA-256 of the volume key, so it has 256 bits even if the
/// volume key is shorter.
fn essiv_cipher<E: KeyInit>(key: &[u8]) -> Option<E> {
    let mut hash = Sha256::digest(key);
    let cipher = E::new_from_slice(&hash).ok();
    hash.as_mut_slice().zeroize();
    cipher
}

/// CBC, which starts again in each sector. With ESSIV, `iv` encrypts the IV first.
struct Cbc<C, E> {
    data: C,
    iv: Option<E>,
}

impl<C, E> Cbc<C, E>
where
    E: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    fn next_iv(&self, tweaks: &mut Tweaks) -> Block<E> {
        let mut iv = Array(tweaks.next_tweak());
        if let Some(cipher) = &self.iv {
            cipher.encrypt_block(&mut iv);
        }
        iv
    }
}

impl<C, E> SectorCipher for Cbc<C, E>
where
    C: Both + Send + Sync,
    E: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + Send + Sync,
{
    fn encrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        for sector in data.chunks_exact_mut(sector_size) {
            let iv = self.next_iv(&mut tweaks);
            let (blocks, _) = Array::slice_as_chunks_mut(sector);
            ::cbc::Encryptor::inner_iv_init(&self.data, &iv).encrypt_blocks(blocks);
        }
    }

    fn decrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        for sector in data.chunks_exact_mut(sector_size) {
            let iv = self.next_iv(&mut tweaks);
            let (blocks, _) = Array::slice_as_chunks_mut(sector);
            ::cbc::Decryptor::inner_iv_init(&self.data, &iv).decrypt_blocks(blocks);
        }
    }
}

/// A block cipher with 16-byte blocks that encrypts and decrypts.
pub(super) trait Both:
    KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>
{
}
impl<C> Both for C where
    C: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>
{
}
