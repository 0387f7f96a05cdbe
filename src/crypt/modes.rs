//! XTS, CBC and ECB with any block cipher, sector by sector.

use ::cbc::cipher::{
    Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt,
    BlockSizeUser, InnerIvInit, KeyInit, array::Array, consts::U16,
};
use luksmith_formats::{EssivHash, IvGenerator};
use sha2::Digest;
#[cfg(feature = "ciphers")]
use xts_mode::Xts128;
use zeroize::Zeroize;

use crate::secret::{LockError, LockedBox};
use crate::xts::{TweakForm, Tweaks, Xts};

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

/// AES-XTS whose IVs `E` encrypts.
pub(super) fn xts_with_essiv<E: OneWay + Large>(xts: Xts, key: &[u8], iv: IvGenerator) -> Keyed {
    let locked = LockedBox::new(Ivs::<E>::new(key, iv)?);
    Some(locked.map(|ivs| -> Box<dyn SectorCipher> { Box::new(XtsWithEssiv { xts, ivs }) }))
}

#[cfg(feature = "ciphers")]
pub(super) fn xts<C: Both + Large, E: OneWay + Large>(key: &[u8], iv: IvGenerator) -> Keyed {
    let (data, tweak) = key.split_at(key.len() / 2);
    let (data, tweak) = (
        C::new_from_slice(data).ok()?,
        C::new_from_slice(tweak).ok()?,
    );
    Some(locked(OtherXts {
        xts: Xts128::new(data, tweak),
        ivs: Ivs::<E>::new(key, iv)?,
    }))
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

/// The IVs of consecutive sectors: their numbers, which ESSIV encrypts.
struct Ivs<E> {
    essiv: Option<E>,
    /// Whether a number is at the end of its 16 bytes.
    big_endian: bool,
}

impl<E: OneWay> Ivs<E> {
    /// `None` if the cipher has no keys of the length of the hash of ESSIV.
    fn new(key: &[u8], iv: IvGenerator) -> Option<Self> {
        Some(Self {
            essiv: match iv {
                IvGenerator::Essiv(hash) => Some(essiv_cipher(key, hash)?),
                _ => None,
            },
            big_endian: iv == IvGenerator::Plain64Be,
        })
    }

    /// An IV has the size of a block. One that is shorter than 16 bytes is that part of them which
    /// has the number.
    fn next(&self, tweaks: &mut Tweaks) -> Block<E> {
        let bytes = tweaks.next_tweak();
        let mut iv = Block::<E>::default();
        let begin = match self.big_endian {
            true => bytes.len() - iv.len(),
            false => 0,
        };
        let part = &bytes[begin..][..iv.len()];
        iv.copy_from_slice(part);
        if let Some(cipher) = &self.essiv {
            cipher.encrypt_block(&mut iv);
        }
        iv
    }
}

/// The cipher of ESSIV. Its key is the hash of the whole volume key, so it has 256 bits even if the
/// volume key is shorter.
fn essiv_cipher<E: KeyInit>(key: &[u8], hash: EssivHash) -> Option<E> {
    let mut hash = match hash {
        EssivHash::Sha256 => sha2::Sha256::digest(key),
        #[cfg(feature = "ciphers")]
        EssivHash::Sha3_256 => sha3::Sha3_256::digest(key),
        #[cfg(feature = "ciphers")]
        EssivHash::Sm3 => sm3::Sm3::digest(key),
        #[cfg(not(feature = "ciphers"))]
        EssivHash::Sha3_256 | EssivHash::Sm3 => return None,
    };
    let cipher = E::new_from_slice(&hash).ok();
    hash.as_mut_slice().zeroize();
    cipher
}

/// AES-XTS with ESSIV. The kernel gets one sector at a time, since their IVs are no numbers in a
/// row.
struct XtsWithEssiv<E> {
    xts: Xts,
    ivs: LockedBox<Ivs<E>>,
}

impl<E: OneWay + Large> XtsWithEssiv<E> {
    fn next(&self, tweaks: &mut Tweaks) -> Tweaks {
        let iv = u128::from_le_bytes(self.ivs.next(tweaks).0);
        Tweaks::new(iv, 1, TweakForm::Whole)
    }
}

impl<E: OneWay + Large> SectorCipher for XtsWithEssiv<E> {
    fn encrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        for sector in data.chunks_exact_mut(sector_size) {
            SectorCipher::encrypt(&self.xts, self.next(&mut tweaks), sector_size, sector);
        }
    }

    fn decrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        for sector in data.chunks_exact_mut(sector_size) {
            SectorCipher::decrypt(&self.xts, self.next(&mut tweaks), sector_size, sector);
        }
    }
}

/// XTS with any cipher, block by block.
#[cfg(feature = "ciphers")]
struct OtherXts<C, E> {
    xts: Xts128<C>,
    ivs: Ivs<E>,
}

#[cfg(feature = "ciphers")]
impl<C: Both + Large, E: OneWay + Large> SectorCipher for OtherXts<C, E> {
    fn encrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        for sector in data.chunks_exact_mut(sector_size) {
            self.xts.encrypt_sector(sector, self.ivs.next(&mut tweaks));
        }
    }

    fn decrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        for sector in data.chunks_exact_mut(sector_size) {
            self.xts.decrypt_sector(sector, self.ivs.next(&mut tweaks));
        }
    }
}

pub(super) fn cbc<C, E>(key: &[u8], iv: IvGenerator) -> Keyed
where
    C: Both,
    E: OneWay + BlockSizeUser<BlockSize = <C as BlockSizeUser>::BlockSize>,
{
    Some(locked(Cbc {
        data: C::new_from_slice(key).ok()?,
        ivs: Ivs::<E>::new(key, iv)?,
    }))
}

/// CBC, which starts again in each sector.
struct Cbc<C, E> {
    data: C,
    ivs: Ivs<E>,
}

impl<C, E> SectorCipher for Cbc<C, E>
where
    C: Both,
    E: OneWay + BlockSizeUser<BlockSize = <C as BlockSizeUser>::BlockSize>,
{
    fn encrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        for sector in data.chunks_exact_mut(sector_size) {
            let iv = self.ivs.next(&mut tweaks);
            let (blocks, _) = Array::slice_as_chunks_mut(sector);
            ::cbc::Encryptor::inner_iv_init(&self.data, &iv).encrypt_blocks(blocks);
        }
    }

    fn decrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        for sector in data.chunks_exact_mut(sector_size) {
            let iv = self.ivs.next(&mut tweaks);
            let (blocks, _) = Array::slice_as_chunks_mut(sector);
            ::cbc::Decryptor::inner_iv_init(&self.data, &iv).decrypt_blocks(blocks);
        }
    }
}

pub(super) fn ecb<C: Both>(key: &[u8]) -> Keyed {
    Some(locked(Ecb(C::new_from_slice(key).ok()?)))
}

/// ECB: each block on its own.
struct Ecb<C>(C);

impl<C: Both> SectorCipher for Ecb<C> {
    fn encrypt(&self, _: Tweaks, _: usize, data: &mut [u8]) {
        let (blocks, _) = Array::slice_as_chunks_mut(data);
        self.0.encrypt_blocks(blocks);
    }

    fn decrypt(&self, _: Tweaks, _: usize, data: &mut [u8]) {
        let (blocks, _) = Array::slice_as_chunks_mut(data);
        self.0.decrypt_blocks(blocks);
    }
}

/// A block cipher that encrypts.
pub(super) trait OneWay: KeyInit + BlockCipherEncrypt + Send + Sync + 'static {}
impl<C: KeyInit + BlockCipherEncrypt + Send + Sync + 'static> OneWay for C {}

/// One that also decrypts.
pub(super) trait Both: OneWay + BlockCipherDecrypt {}
impl<C: OneWay + BlockCipherDecrypt> Both for C {}

/// One with blocks of 16 bytes.
pub(super) trait Large: BlockSizeUser<BlockSize = U16> {}
impl<C: BlockSizeUser<BlockSize = U16>> Large for C {}
