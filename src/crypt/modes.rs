//! XTS and ECB with any block cipher, and the IVs of sectors.

use ::cbc::cipher::{
    Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, KeyInit, array::Array,
    consts::U16,
};
use luksmith_formats::{EssivHash, IvGenerator};
use sha2::Digest;
use zeroize::{Zeroize, Zeroizing};

use crate::secret::{LockError, LockedBox};
#[cfg(feature = "ciphers")]
use crate::xts::BlockXts;
use crate::xts::{TweakForm, Tweaks, Windows, Xts};

/// A cipher with its key in locked memory. `None` if the cipher has no keys of this length.
pub(super) type Keyed = Option<Result<Box<dyn SectorCipher>, LockError>>;

/// Encrypts and decrypts whole sectors. The caller passes data that is a whole number of sectors,
/// sectors that are a whole number of blocks, and windows of the length of the data.
pub(super) trait SectorCipher: Send + Sync {
    fn encrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]);
    fn decrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]);

    /// Encrypts what is in the windows. Each of their bytes is read once.
    fn encrypt_from(&self, tweaks: Tweaks, sector_size: usize, from: Windows<'_>, into: &mut [u8]) {
        from.copy_to(into);
        self.encrypt(tweaks, sector_size, into);
    }

    /// Decrypts to the windows, without writing ciphertext there.
    fn decrypt_into(
        &self,
        mut tweaks: Tweaks,
        sector_size: usize,
        from: &[u8],
        mut into: Windows<'_>,
    ) {
        let mut bounce = Zeroizing::new([0; BOUNCE]);
        for from in from.chunks(BOUNCE - BOUNCE % sector_size) {
            let plain = &mut bounce[..from.len()];
            plain.copy_from_slice(from);
            self.decrypt(tweaks, sector_size, plain);
            into.take(plain.len()).copy_from(plain);
            tweaks.skip(from.len() / sector_size);
        }
    }
}

/// The size of the memory that plaintext passes through on its way to windows, in bytes. It is at
/// least one sector.
const BOUNCE: usize = 4096;

impl SectorCipher for Xts {
    fn encrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        self.encrypt(tweaks, sector_size, data)
            .expect("whole sectors");
    }

    fn decrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        self.decrypt(tweaks, sector_size, data)
            .expect("whole sectors");
    }

    fn encrypt_from(&self, tweaks: Tweaks, sector_size: usize, from: Windows<'_>, into: &mut [u8]) {
        self.encrypt_from(tweaks, sector_size, from, into)
            .expect("whole sectors");
    }

    fn decrypt_into(&self, tweaks: Tweaks, sector_size: usize, from: &[u8], into: Windows<'_>) {
        self.decrypt_into(tweaks, sector_size, from, into)
            .expect("whole sectors");
    }
}

/// AES-XTS whose IVs `E` encrypts.
pub(super) fn xts_with_essiv<E: OneWay + Large>(xts: Xts, key: &[u8], iv: IvGenerator) -> Keyed {
    let ivs = Ivs::<E>::new(key, iv)?;
    Some(locked(XtsWithEssiv { xts, ivs }))
}

/// XTS with any cipher.
#[cfg(feature = "ciphers")]
pub(super) fn xts<C: Both + Large, E: OneWay + Large>(key: &[u8], iv: IvGenerator) -> Keyed {
    let xts = BlockXts::<C, C>::new(key).ok()?;
    Some(match iv {
        IvGenerator::Essiv(_) => {
            let ivs = Ivs::<E>::new(key, iv)?;
            locked(BlockXtsWithEssiv { xts, ivs })
        }
        _ => locked(xts),
    })
}

#[cfg(feature = "ciphers")]
impl<C: Both + Large> SectorCipher for BlockXts<C, C> {
    fn encrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        self.encrypt(tweaks, sector_size, data);
    }

    fn decrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        self.decrypt(tweaks, sector_size, data);
    }
}

pub(super) fn locked<C: SectorCipher + 'static>(
    cipher: C,
) -> Result<Box<dyn SectorCipher>, LockError> {
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
pub(super) struct Ivs<E> {
    essiv: Option<E>,
    /// Whether a number is at the end of its 16 bytes.
    big_endian: bool,
}

impl<E: OneWay> Ivs<E> {
    /// `None` if the cipher has no keys of the length of the hash of ESSIV.
    pub(super) fn new(key: &[u8], iv: IvGenerator) -> Option<Self> {
        Some(Self {
            essiv: match iv {
                IvGenerator::Essiv(hash) => Some(essiv_cipher(key, hash)?),
                _ => None,
            },
            big_endian: iv == IvGenerator::Plain64Be,
        })
    }

    /// Takes the IVs of the next sectors.
    ///
    /// An IV has the size of a block. One that is shorter than 16 bytes is that part of them which
    /// has the number.
    pub(super) fn fill(&self, tweaks: &mut Tweaks, ivs: &mut [Block<E>]) {
        for iv in ivs.iter_mut() {
            let bytes = tweaks.next_tweak();
            let begin = match self.big_endian {
                true => bytes.len() - iv.len(),
                false => 0,
            };
            let part = &bytes[begin..][..iv.len()];
            iv.copy_from_slice(part);
        }
        if let Some(cipher) = &self.essiv {
            cipher.encrypt_blocks(ivs);
        }
    }

    fn next(&self, tweaks: &mut Tweaks) -> Block<E> {
        let mut iv = Block::<E>::default();
        self.fill(tweaks, std::slice::from_mut(&mut iv));
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
    ivs: Ivs<E>,
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
            let tweak = self.next(&mut tweaks);
            SectorCipher::encrypt(&self.xts, tweak, sector_size, sector);
        }
    }

    fn decrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        for sector in data.chunks_exact_mut(sector_size) {
            let tweak = self.next(&mut tweaks);
            SectorCipher::decrypt(&self.xts, tweak, sector_size, sector);
        }
    }
}

/// XTS with any cipher and ESSIV. The IVs of many sectors are encrypted together.
#[cfg(feature = "ciphers")]
struct BlockXtsWithEssiv<C, E> {
    xts: BlockXts<C, C>,
    ivs: Ivs<E>,
}

#[cfg(feature = "ciphers")]
impl<C: Both + Large, E: OneWay + Large> SectorCipher for BlockXtsWithEssiv<C, E> {
    fn encrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        let fill = |ivs: &mut [_]| self.ivs.fill(&mut tweaks, ivs);
        self.xts.encrypt_with(fill, sector_size, data);
    }

    fn decrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        let fill = |ivs: &mut [_]| self.ivs.fill(&mut tweaks, ivs);
        self.xts.decrypt_with(fill, sector_size, data);
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
