//! The only place that turns plaintext into ciphertext and back: a cipher specification and a key.
//!
//! Sectors are counted as dm-crypt does: an IV is in units of 512 bytes whatever the sector size (LUKS2 on-disk
//! format, segment field `iv_tweak`), starts again nowhere and wraps at the end of its width. Each sector is
//! encrypted by itself, in place.
//!
//! AES-XTS goes through [`xts`](crate::xts). All else goes through the RustCrypto crates block by block, slower:
//! twofish most of all, at a few MB/s.

use cbc::cipher::{
    Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt,
    BlockSizeUser, InnerIvInit, KeyInit, array::Array, consts::U16,
};
use luksmith_formats::{BlockCipher, CipherError, CipherSpec, IvGenerator, Mode};
use sha2::{Digest, Sha256};
use xts_mode::Xts128;
use zeroize::Zeroize;

use crate::secret::{
    LockError, LockedBox, LockedBytes, VolumeKey, scrub_stack, scrub_stack_of_sectors,
};
use crate::sectors::{Cipher, Plain, Sectors};
use crate::xts::{Kernel, KernelError, Memory, TweakForm, Tweaks, Xts, XtsError};

/// The number of a sector as the IV has it: always in units of 512 bytes, also where sectors are larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IvSector(pub u64);

impl IvSector {
    /// The number `bytes` further on, wrapping.
    pub fn after_bytes(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes / 512))
    }
}

/// Why a cipher cannot be keyed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CryptError {
    /// The cipher has no keys of this length.
    #[error(transparent)]
    Key(#[from] CipherError),
    /// The IV generator does not go with the mode.
    #[error("{0} is not a cipher that volumes use")]
    Unsupported(CipherSpec),
    /// Sectors have 512, 1024, 2048 or 4096 bytes.
    #[error("there are no sectors of {0} bytes")]
    SectorSize(u32),
    /// The kernel that the environment names cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel refused the key.
    #[error(transparent)]
    Xts(#[from] XtsError),
    /// The key schedule cannot be kept in locked memory.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// A keyed cipher for sectors of one size. The key schedule is in locked memory, and wiped when this is dropped.
pub struct SectorCrypt {
    spec: CipherSpec,
    sector_size: u32,
    form: TweakForm,
    cipher: Box<dyn SectorCipher>,
}

impl SectorCrypt {
    /// Keys the cipher of a volume.
    ///
    /// # Errors
    /// [`CryptError`].
    pub fn new(spec: CipherSpec, sector_size: u32, key: &VolumeKey) -> Result<Self, CryptError> {
        Self::with_key(spec, sector_size, key.as_bytes(), None)
    }

    /// As [`new`](Self::new), with this kernel where the cipher is AES in XTS mode: to compare them.
    ///
    /// # Errors
    /// [`CryptError`]; [`CryptError::Xts`] for a kernel that this machine cannot run.
    pub fn with_kernel(
        spec: CipherSpec,
        sector_size: u32,
        key: &VolumeKey,
        kernel: Kernel,
    ) -> Result<Self, CryptError> {
        Self::with_key(spec, sector_size, key.as_bytes(), Some(kernel))
    }

    /// Keys the cipher of a keyslot area, whose sectors have 512 bytes and begin with IV 0.
    ///
    /// # Errors
    /// [`CryptError`].
    pub fn for_keyslot(spec: CipherSpec, key: &[u8]) -> Result<Self, CryptError> {
        Self::with_key(spec, 512, key, None)
    }

    fn with_key(
        spec: CipherSpec,
        sector_size: u32,
        key: &[u8],
        kernel: Option<Kernel>,
    ) -> Result<Self, CryptError> {
        if !matches!(sector_size, 512 | 1024 | 2048 | 4096) {
            return Err(CryptError::SectorSize(sector_size));
        }
        spec.check_key_size(key.len())?;
        let cipher = keyed(spec, key, kernel);
        // Expanding the key left pieces of it in frames that are gone.
        scrub_stack();
        Ok(Self {
            spec,
            sector_size,
            form: form(spec.iv),
            cipher: cipher?,
        })
    }

    /// The cipher.
    pub fn spec(&self) -> CipherSpec {
        self.spec
    }

    /// The size of a sector, in bytes.
    pub fn sector_size(&self) -> u32 {
        self.sector_size
    }

    /// Encrypts whole sectors, the first with the IV `first`.
    ///
    /// # Panics
    /// Where the length is not a whole number of sectors.
    pub fn encrypt(&self, first: IvSector, sectors: Sectors<Plain>) -> Sectors<Cipher> {
        let (tweaks, sector_size) = self.prepare(first, sectors.len());
        let turned = sectors.encrypted(|data| self.cipher.encrypt(tweaks, sector_size, data));
        scrub_stack_of_sectors();
        turned
    }

    /// Decrypts whole sectors, the first with the IV `first`.
    ///
    /// # Panics
    /// Where the length is not a whole number of sectors.
    pub fn decrypt(&self, first: IvSector, sectors: Sectors<Cipher>) -> Sectors<Plain> {
        let (tweaks, sector_size) = self.prepare(first, sectors.len());
        let turned = sectors.decrypted(|data| self.cipher.decrypt(tweaks, sector_size, data));
        scrub_stack_of_sectors();
        turned
    }

    /// Encrypts split key material where it lies: it never leaves locked memory as plaintext.
    pub(crate) fn encrypt_material(&self, material: &mut LockedBytes) {
        let (tweaks, sector_size) = self.prepare(IvSector(0), material.len());
        self.cipher.encrypt(tweaks, sector_size, material);
        scrub_stack_of_sectors();
    }

    /// The way back of [`encrypt_material`](Self::encrypt_material).
    pub(crate) fn decrypt_material(&self, material: &mut LockedBytes) {
        let (tweaks, sector_size) = self.prepare(IvSector(0), material.len());
        self.cipher.decrypt(tweaks, sector_size, material);
        scrub_stack_of_sectors();
    }

    fn prepare(&self, first: IvSector, len: usize) -> (Tweaks, usize) {
        let step = u128::from(self.sector_size / 512);
        let sector_size = self.sector_size as usize;
        assert!(
            len.is_multiple_of(sector_size),
            "{len} bytes are not whole sectors of {sector_size}"
        );
        (Tweaks::new(first.0.into(), step, self.form), sector_size)
    }
}

impl std::fmt::Debug for SectorCrypt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "SectorCrypt({}, {}-byte sectors)",
            self.spec, self.sector_size
        )
    }
}

fn form(iv: IvGenerator) -> TweakForm {
    match iv {
        IvGenerator::Plain => TweakForm::Plain,
        IvGenerator::Plain64 | IvGenerator::EssivSha256 => TweakForm::Plain64,
        IvGenerator::Plain64Be => TweakForm::Plain64Be,
    }
}

/// Chooses by mode, cipher and key size, which `check_key_size` has passed. Not inlined, so that its copies of the key
/// lie below the frame that scrubs the stack.
#[inline(never)]
fn keyed(
    spec: CipherSpec,
    key: &[u8],
    kernel: Option<Kernel>,
) -> Result<Box<dyn SectorCipher>, CryptError> {
    use BlockCipher::{Aes, Camellia, Serpent, Twofish};
    let wrong = || CipherError::KeySize {
        spec,
        bytes: key.len(),
    };
    let essiv = spec.iv == IvGenerator::EssivSha256;
    match (spec.mode, spec.cipher, key.len()) {
        (Mode::Xts, ..) if essiv => return Err(CryptError::Unsupported(spec)),
        (Mode::Xts, Aes, _) => {
            let kernel = kernel.map_or_else(Kernel::best, Ok)?;
            let xts = Xts::new_in::<Locked, CryptError>(kernel, key)?;
            return Ok(Box::new(xts));
        }
        (Mode::Xts, Serpent, _) => xts::<serpent::Serpent>(key),
        (Mode::Xts, Twofish, _) => xts::<twofish::Twofish>(key),
        (Mode::Xts, Camellia, 32) => xts::<camellia::Camellia128>(key),
        (Mode::Xts, Camellia, _) => xts::<camellia::Camellia256>(key),
        (Mode::Cbc, Aes, 16) => cbc::<aes::Aes128, aes::Aes256Enc>(key, essiv),
        (Mode::Cbc, Aes, 24) => cbc::<aes::Aes192, aes::Aes256Enc>(key, essiv),
        (Mode::Cbc, Aes, _) => cbc::<aes::Aes256, aes::Aes256Enc>(key, essiv),
        (Mode::Cbc, Serpent, _) => cbc::<serpent::Serpent, serpent::Serpent>(key, essiv),
        (Mode::Cbc, Twofish, _) => cbc::<twofish::Twofish, twofish::Twofish>(key, essiv),
        (Mode::Cbc, Camellia, 16) => {
            cbc::<camellia::Camellia128, camellia::Camellia256>(key, essiv)
        }
        (Mode::Cbc, Camellia, 24) => {
            cbc::<camellia::Camellia192, camellia::Camellia256>(key, essiv)
        }
        (Mode::Cbc, Camellia, _) => cbc::<camellia::Camellia256, camellia::Camellia256>(key, essiv),
    }
    .unwrap_or_else(|| Err(wrong().into()))
}

/// Locked memory for key schedules.
struct Locked;

impl Memory for Locked {
    type Held<T: Send + Sync + 'static> = LockedBox<T>;
    type Error = LockError;

    fn hold<T: Send + Sync + 'static>(value: T) -> Result<LockedBox<T>, LockError> {
        LockedBox::new(value)
    }
}

/// Whole sectors in place. The length of `data` is a multiple of `sector_size`, which is one of blocks.
trait SectorCipher: Send + Sync {
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

fn xts<C>(key: &[u8]) -> Option<Result<Box<dyn SectorCipher>, CryptError>>
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

fn locked<C: SectorCipher + 'static>(cipher: C) -> Result<Box<dyn SectorCipher>, CryptError> {
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

/// XTS of any cipher, block by block.
struct OtherXts<C>(Xts128<C>);

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

fn cbc<C, E>(key: &[u8], essiv: bool) -> Option<Result<Box<dyn SectorCipher>, CryptError>>
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

/// ESSIV's cipher has the hash of the volume key as its key, 256 bits whatever the size of the volume key.
fn essiv_cipher<E: KeyInit>(key: &[u8]) -> Option<E> {
    let mut hash = Sha256::digest(key);
    let cipher = E::new_from_slice(&hash).ok();
    hash.as_mut_slice().zeroize();
    cipher
}

/// CBC, each sector by itself; with ESSIV the IV is encrypted first.
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

/// A block cipher with 16-byte blocks, in both directions.
trait Both: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> {}
impl<C> Both for C where
    C: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>
{
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification read literally: one block at a time, with nothing of the modes' crates.
    struct Oracle {
        data: OneBlock,
        second: Option<OneBlock>,
        spec: CipherSpec,
    }

    type OneBlock = Box<dyn Fn(&mut [u8; 16])>;

    fn one_block(cipher: BlockCipher, key: &[u8]) -> OneBlock {
        fn with<C: Both + 'static>(key: &[u8]) -> OneBlock {
            let cipher = C::new_from_slice(key).unwrap();
            Box::new(move |block| {
                let mut array = Array(*block);
                cipher.encrypt_block(&mut array);
                *block = array.0;
            })
        }
        match (cipher, key.len()) {
            (BlockCipher::Aes, 16) => with::<aes::Aes128>(key),
            (BlockCipher::Aes, 24) => with::<aes::Aes192>(key),
            (BlockCipher::Aes, _) => with::<aes::Aes256>(key),
            (BlockCipher::Serpent, _) => with::<serpent::Serpent>(key),
            (BlockCipher::Twofish, _) => with::<twofish::Twofish>(key),
            (BlockCipher::Camellia, 16) => with::<camellia::Camellia128>(key),
            (BlockCipher::Camellia, 24) => with::<camellia::Camellia192>(key),
            (BlockCipher::Camellia, _) => with::<camellia::Camellia256>(key),
        }
    }

    impl Oracle {
        fn new(spec: CipherSpec, key: &[u8]) -> Self {
            let (data, second) = match (spec.mode, spec.iv) {
                (Mode::Xts, _) => (&key[..key.len() / 2], Some(key[key.len() / 2..].to_vec())),
                (_, IvGenerator::EssivSha256) => (key, Some(Sha256::digest(key).to_vec())),
                _ => (key, None),
            };
            let second = second.map(|key| one_block(spec.cipher, &key));
            Self {
                data: one_block(spec.cipher, data),
                second,
                spec,
            }
        }

        fn encrypt(&self, number: u64, sector: &mut [u8]) {
            let mut chain = [0; 16];
            match self.spec.iv {
                IvGenerator::Plain => chain[..4].copy_from_slice(&number.to_le_bytes()[..4]),
                IvGenerator::Plain64Be => chain[8..].copy_from_slice(&number.to_be_bytes()),
                _ => chain[..8].copy_from_slice(&number.to_le_bytes()),
            }
            if let Some(second) = &self.second {
                second(&mut chain);
            }
            for block in sector.as_chunks_mut::<16>().0 {
                xor(block, &chain);
                (self.data)(block);
                if self.spec.mode == Mode::Xts {
                    xor(block, &chain);
                    double(&mut chain);
                } else {
                    chain = *block;
                }
            }
        }
    }

    fn xor(block: &mut [u8; 16], other: &[u8; 16]) {
        block.iter_mut().zip(other).for_each(|(a, b)| *a ^= b);
    }

    fn double(tweak: &mut [u8; 16]) {
        let mut carry = 0;
        for byte in tweak.iter_mut() {
            (*byte, carry) = ((*byte << 1) | carry, *byte >> 7);
        }
        tweak[0] ^= carry * 0x87;
    }

    fn every_spec() -> impl Iterator<Item = CipherSpec> {
        use IvGenerator::{EssivSha256, Plain, Plain64, Plain64Be};
        let modes = [Mode::Xts, Mode::Cbc];
        let ivs = [Plain, Plain64, Plain64Be, EssivSha256];
        BlockCipher::ALL.into_iter().flat_map(move |cipher| {
            let of_mode = move |mode| ivs.map(|iv| CipherSpec { cipher, mode, iv });
            modes.into_iter().flat_map(of_mode)
        })
    }

    fn is_used(spec: &CipherSpec) -> bool {
        (spec.mode, spec.iv) != (Mode::Xts, IvGenerator::EssivSha256)
    }

    fn plaintext(len: usize) -> Sectors<Plain> {
        let mut sectors = Sectors::<Plain>::zeroed(len);
        let bytes = sectors.as_mut_slice().iter_mut().zip(0u64..);
        bytes.for_each(|(byte, n)| *byte = ((n * n) >> 5).to_le_bytes()[0]);
        sectors
    }

    #[test]
    fn every_cipher_is_what_the_specification_says() {
        let key: Vec<u8> = (0..64u8).map(|n| n.wrapping_mul(73) ^ 5).collect();
        let mut count = 0;
        for spec in every_spec().filter(is_used) {
            for &key_size in spec.key_sizes() {
                for sector_size in [512, 1024, 2048, 4096] {
                    let key = VolumeKey::copy_from(&key[..key_size]).unwrap();
                    let crypt = SectorCrypt::new(spec, sector_size, &key).unwrap();
                    let oracle = Oracle::new(spec, key.as_bytes());
                    // A few sectors on both sides of where 32 and 64 bits end.
                    for first in [0, u64::from(u32::MAX) - 7, u64::MAX - 7] {
                        let plain = plaintext(3 * sector_size as usize);
                        let mut expected = plain.as_slice().to_vec();
                        let mut number = first;
                        for sector in expected.chunks_mut(sector_size as usize) {
                            oracle.encrypt(number, sector);
                            number = number.wrapping_add(u64::from(sector_size) / 512);
                        }
                        let cipher = crypt.encrypt(IvSector(first), plain);
                        assert!(
                            cipher.as_slice() == expected,
                            "{spec} {key_size} {sector_size}"
                        );
                        let plain = crypt.decrypt(IvSector(first), cipher);
                        let original = plaintext(plain.len());
                        assert!(plain.as_slice() == original.as_slice(), "{spec} {key_size}");
                        count += 1;
                    }
                }
            }
        }
        // (3 IVs x 2 key sizes of XTS + 4 IVs x 3 key sizes of CBC) x 4 ciphers x 4 sector sizes x 3 places.
        assert_eq!(count, (3 * 2 + 4 * 3) * 4 * 4 * 3);
    }

    #[test]
    fn what_volumes_do_not_use_is_refused() {
        let essiv_xts = CipherSpec {
            iv: IvGenerator::EssivSha256,
            ..CipherSpec::AES_XTS_PLAIN64
        };
        let key = |len| VolumeKey::copy_from(&vec![1; len]).unwrap();
        let refused = |spec, size, len| SectorCrypt::new(spec, size, &key(len)).unwrap_err();
        assert!(
            matches!(refused(essiv_xts, 512, 64), CryptError::Unsupported(spec) if spec == essiv_xts)
        );
        for size in [0, 256, 513, 8192] {
            let error = refused(CipherSpec::AES_XTS_PLAIN64, size, 64);
            assert!(matches!(error, CryptError::SectorSize(refused) if refused == size));
        }
        for spec in every_spec().filter(is_used) {
            for len in [0, 1, 15, 17, 48, 65, 128] {
                assert!(
                    matches!(refused(spec, 512, len), CryptError::Key(_)),
                    "{spec} {len}"
                );
            }
        }
    }

    #[test]
    fn numbers_of_sectors_wrap() {
        assert_eq!(IvSector(5).after_bytes(4096), IvSector(13));
        assert_eq!(IvSector(u64::MAX).after_bytes(512), IvSector(0));
    }

    #[test]
    fn debug_shows_no_key() {
        let key = VolumeKey::copy_from(&[0xab; 64]).unwrap();
        let crypt = SectorCrypt::new(CipherSpec::AES_XTS_PLAIN64, 4096, &key).unwrap();
        assert_eq!(
            format!("{crypt:?}"),
            "SectorCrypt(aes-xts-plain64, 4096-byte sectors)"
        );
    }
}
