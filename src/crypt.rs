//! Sector encryption: the only place that converts plaintext into ciphertext and back.
//!
//! Sectors are numbered as in dm-crypt. An IV counts units of 512 bytes, whatever the sector size
//! is (LUKS2 on-disk format, segment field `iv_tweak`). It never restarts within a volume, and
//! wraps at the end of its width. Each sector is encrypted on its own, in place, or from and to
//! memory that a guest uses at the same time ([`Windows`]).
//!
//! AES-XTS uses [`xts`](crate::xts), with ESSIV sector by sector. `cbc.rs` encrypts several sectors
//! at the same time. Serpent, Twofish and Camellia are in `wide/` for CPUs with AVX2. Elsewhere,
//! and for single blocks, they take one block at a time, as all other ciphers do. Adiantum uses the
//! RustCrypto crates of its parts.
//!
//! Sectors with tags (`authenticated/`) are only decrypted, and only if their tags match.

#[cfg(feature = "ciphers")]
mod adiantum;
mod authenticated;
mod cbc;
#[cfg(feature = "ciphers")]
mod ciphers;
mod modes;
mod scratch;
#[cfg(test)]
mod tests;
#[cfg(feature = "ciphers")]
mod twofish;
#[cfg(all(feature = "ciphers", target_arch = "x86_64"))]
mod wide;

use luksmith_formats::{
    AuthenticatedCipher, BlockCipher, CipherError, CipherSpec, EssivHash, IvGenerator, Mode,
};

use crate::feature::MissingFeature;
use crate::secret::{
    LockError, LockedBox, LockedBytes, VolumeKey, scrub_stack, scrub_stack_of_kernels,
    scrub_stack_of_sectors,
};
use crate::sectors::{Cipher, Plain, Sectors};
use crate::xts::{Kernel, Memory, TweakForm, Tweaks, Xts, XtsError};
use authenticated::opener::SectorOpener;
use cbc::{Several, cbc};
use modes::{SectorCipher, ecb, xts_with_essiv};
pub(crate) use scratch::Scratch;

pub use crate::xts::{Window, Windows};

/// The sector number from which an IV is made. It always counts units of 512 bytes, also if sectors
/// are larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IvSector(pub u64);

impl IvSector {
    /// The number of the unit that is `bytes` further on. It wraps around.
    pub fn after_bytes(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes / 512))
    }
}

/// Why a cipher cannot be used with a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CryptError {
    /// The cipher has no keys of this length.
    #[error(transparent)]
    Key(#[from] CipherError),
    /// The cipher, whose sectors have tags, has no volume keys of this length.
    #[error("{cipher} has no keys of {bytes} bytes")]
    TaggedKey {
        /// The cipher.
        cipher: AuthenticatedCipher,
        /// The size of the key, in bytes.
        bytes: usize,
    },
    /// The IV generator cannot be combined with the mode.
    #[error("{0} is not a cipher that volumes use")]
    Unsupported(CipherSpec),
    /// The cipher needs a feature of this crate that is not enabled.
    #[error(transparent)]
    MissingFeature(#[from] MissingFeature),
    /// The sector size is not 512, 1024, 2048 or 4096 bytes.
    #[error("there are no sectors of {0} bytes")]
    SectorSize(u32),
    /// The kernel refused the key.
    #[error(transparent)]
    Xts(#[from] XtsError),
    /// The key schedule cannot be kept in locked memory.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// A cipher with its key, for sectors of one size. The key schedule is in locked memory, and is
/// wiped when this value is dropped.
pub struct SectorCrypt {
    spec: CipherSpec,
    sector_size: u32,
    form: TweakForm,
    cipher: Box<dyn SectorCipher>,
    /// Whether the cipher is a kernel of AES-XTS for special instructions, and nothing else.
    is_kernel: bool,
}

impl SectorCrypt {
    /// The cipher of a volume, with the volume key.
    ///
    /// # Errors
    /// Returns [`CryptError`] if the cipher cannot be used with this key or sector size.
    pub fn new(spec: CipherSpec, sector_size: u32, key: &VolumeKey) -> Result<Self, CryptError> {
        Self::with_key(spec, sector_size, key.as_bytes(), None)
    }

    /// Like [`new`](Self::new), but AES-XTS uses `kernel`. This is for comparing kernels.
    ///
    /// # Errors
    /// The same as for [`new`](Self::new), and [`CryptError::Xts`] if this machine cannot run the
    /// kernel.
    pub fn with_kernel(
        spec: CipherSpec,
        sector_size: u32,
        key: &VolumeKey,
        kernel: Kernel,
    ) -> Result<Self, CryptError> {
        Self::with_key(spec, sector_size, key.as_bytes(), Some(kernel))
    }

    /// The cipher of a keyslot area. Its sectors have 512 bytes, and the first one has IV 0.
    ///
    /// # Errors
    /// Returns [`CryptError`] if the cipher cannot be used with this key.
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
        if !spec.is_known() {
            return Err(CryptError::Unsupported(spec));
        }
        spec.check_key_size(key.len())?;
        let cipher = keyed(spec, key, kernel);
        // The expansion of the key left copies of it on the stack.
        scrub_stack();
        Ok(Self {
            spec,
            sector_size,
            form: form(spec.iv),
            cipher: cipher?,
            is_kernel: is_kernel(spec, kernel),
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

    /// Whether volumes with this cipher are only read.
    pub(crate) fn is_only_read(&self) -> bool {
        self.spec.weakness().is_some()
    }

    /// Logs how sectors are encrypted, and the code that does it.
    pub(crate) fn log(&self) {
        let kernel = match (self.spec.cipher, self.spec.mode) {
            (BlockCipher::Aes, Mode::Xts) => format!(", kernel {}", Kernel::best()),
            _ => String::new(),
        };
        let size = self.sector_size;
        tracing::info!("data: {}, {size}-byte sectors{kernel}", self.spec);
    }

    /// Encrypts whole sectors. The first one has the IV `first`.
    ///
    /// # Panics
    /// Panics if the length is not a whole number of sectors.
    pub fn encrypt(&self, first: IvSector, sectors: Sectors<Plain>) -> Sectors<Cipher> {
        let (tweaks, sector_size) = self.prepare(first, sectors.len());
        let turned = sectors.encrypted(|data| self.cipher.encrypt(tweaks, sector_size, data));
        self.scrub_stack();
        turned
    }

    /// Decrypts whole sectors. The first one has the IV `first`.
    ///
    /// # Panics
    /// Panics if the length is not a whole number of sectors.
    pub fn decrypt(&self, first: IvSector, sectors: Sectors<Cipher>) -> Sectors<Plain> {
        let (tweaks, sector_size) = self.prepare(first, sectors.len());
        let turned = sectors.decrypted(|data| self.cipher.decrypt(tweaks, sector_size, data));
        self.scrub_stack();
        turned
    }

    /// Encrypts whole sectors that are in the windows. The first one has the IV `first`. Each byte
    /// of the windows is read once, so the ciphertext is that of bytes that were there.
    ///
    /// # Panics
    /// Panics if the length is not a whole number of sectors.
    pub fn encrypt_from(&self, first: IvSector, from: Windows<'_>) -> Sectors<Cipher> {
        let (tweaks, sector_size) = self.prepare(first, from.len());
        let sectors = Sectors::<Plain>::with_len(from.len());
        let turned = sectors.encrypted(|data| {
            self.cipher.encrypt_from(tweaks, sector_size, from, data);
        });
        self.scrub_stack();
        turned
    }

    /// Decrypts whole sectors to the windows. The first one has the IV `first`. The windows never
    /// hold ciphertext, and are not read.
    ///
    /// # Panics
    /// Panics if the length is not a whole number of sectors, or the windows have another length.
    pub fn decrypt_into(&self, first: IvSector, sectors: &Sectors<Cipher>, into: Windows<'_>) {
        assert_eq!(sectors.len(), into.len(), "windows of another length");
        let (tweaks, sector_size) = self.prepare(first, sectors.len());
        let from = sectors.as_slice();
        self.cipher.decrypt_into(tweaks, sector_size, from, into);
        self.scrub_stack();
    }

    /// Encrypts split key material in place, so that its plaintext never leaves locked memory.
    pub(crate) fn encrypt_material(&self, first: IvSector, material: &mut LockedBytes) {
        let (tweaks, sector_size) = self.prepare(first, material.len());
        self.cipher.encrypt(tweaks, sector_size, material);
        self.scrub_stack();
    }

    /// Decrypts key material in place: the reverse of [`encrypt_material`](Self::encrypt_material).
    pub(crate) fn decrypt_material(&self, first: IvSector, material: &mut LockedBytes) {
        let (tweaks, sector_size) = self.prepare(first, material.len());
        self.cipher.decrypt(tweaks, sector_size, material);
        self.scrub_stack();
    }

    /// Overwrites what the cipher has left on the stack.
    #[inline(always)]
    fn scrub_stack(&self) {
        if self.is_kernel {
            scrub_stack_of_kernels();
        } else {
            scrub_stack_of_sectors();
        }
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

/// A sector does not match its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TagMismatch {
    /// The offset of the sector in the data that was decrypted, in bytes.
    pub(crate) offset: u64,
}

/// A cipher with tags and its key, for sectors of one size. The key schedule is in locked memory,
/// and is wiped when this value is dropped.
pub(crate) struct AuthenticatedCrypt {
    cipher: AuthenticatedCipher,
    sector_size: u32,
    opener: Box<dyn SectorOpener>,
}

impl AuthenticatedCrypt {
    /// The cipher of a volume, with the volume key. The end of that is the key of the codes, if
    /// they have one.
    ///
    /// # Errors
    /// Returns [`CryptError`] if the cipher cannot be used with this key or sector size.
    pub(crate) fn new(
        cipher: AuthenticatedCipher,
        sector_size: u32,
        key: &VolumeKey,
    ) -> Result<Self, CryptError> {
        if !matches!(sector_size, 512 | 1024 | 2048 | 4096) {
            return Err(CryptError::SectorSize(sector_size));
        }
        let opener = opener(cipher, key.as_bytes());
        // The expansion of the key left copies of it on the stack.
        scrub_stack();
        Ok(Self {
            cipher,
            sector_size,
            opener: opener?,
        })
    }

    /// The size of a sector, in bytes.
    pub(crate) fn sector_size(&self) -> u32 {
        self.sector_size
    }

    /// Logs how sectors are encrypted.
    pub(crate) fn log(&self) {
        tracing::info!("data: {}, {}-byte sectors", self.cipher, self.sector_size);
    }

    /// Decrypts whole sectors, each of which has to match its tag. The first one has the number
    /// `first`.
    ///
    /// # Errors
    /// Returns the first sector that does not match. Nothing of the others is returned then.
    pub(crate) fn open(
        &self,
        first: IvSector,
        tags: &[u8],
        sectors: Sectors<Cipher>,
    ) -> Result<Sectors<Plain>, TagMismatch> {
        let mut outcome = Ok(());
        let opened = sectors.decrypted(|data| outcome = self.open_in_place(first, tags, data));
        scrub_stack_of_sectors();
        outcome.map(|()| opened)
    }

    fn open_in_place(
        &self,
        first: IvSector,
        tags: &[u8],
        data: &mut [u8],
    ) -> Result<(), TagMismatch> {
        let size = self.sector_size as usize;
        let mut tags = tags.chunks_exact(self.cipher.tag_size());
        let mut offset = 0;
        for sector in data.chunks_mut(size) {
            let number = first.after_bytes(offset).0;
            let tag = tags.next().filter(|_| sector.len() == size);
            if !tag.is_some_and(|tag| self.opener.open(number, tag, sector)) {
                return Err(TagMismatch { offset });
            }
            offset += size as u64;
        }
        Ok(())
    }
}

impl std::fmt::Debug for AuthenticatedCrypt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "AuthenticatedCrypt({}, {}-byte sectors)",
            self.cipher, self.sector_size
        )
    }
}

/// Not inlined, so that its copies of the key are on the part of the stack that the caller scrubs.
#[inline(never)]
fn opener(cipher: AuthenticatedCipher, key: &[u8]) -> Result<Box<dyn SectorOpener>, CryptError> {
    use AuthenticatedCipher::{
        Aegis128Random, AesGcmRandom, AesXtsPlain64Hmac, AesXtsRandomHmac, ChaCha20RandomPoly1305,
    };
    let bytes = key.len();
    let no_such_key = CryptError::TaggedKey { cipher, bytes };
    if !cipher.key_sizes().contains(&bytes) {
        return Err(no_such_key);
    }
    let (key, code_key) = key.split_at(bytes - cipher.tag_key_size());
    let opener = match cipher {
        AesXtsPlain64Hmac | AesXtsRandomHmac => {
            let xts = Xts::new_in::<Locked, CryptError>(Kernel::best(), key)?;
            authenticated::hmac_xts::hmac_xts(xts, code_key)
        }
        #[cfg(feature = "integrity")]
        AesGcmRandom => authenticated::aead::gcm(key).ok_or(no_such_key)?,
        #[cfg(feature = "integrity")]
        ChaCha20RandomPoly1305 => authenticated::aead::chacha20(key).ok_or(no_such_key)?,
        #[cfg(feature = "integrity")]
        Aegis128Random => authenticated::aegis128::aegis128(key),
        #[cfg(not(feature = "integrity"))]
        AesGcmRandom | ChaCha20RandomPoly1305 | Aegis128Random => {
            return Err(MissingFeature::new(cipher.encryption(), "integrity").into());
        }
    };
    Ok(opener?)
}

fn is_kernel(spec: CipherSpec, kernel: Option<Kernel>) -> bool {
    let is_xts = spec.mode == Mode::Xts && spec.cipher == BlockCipher::Aes;
    let kernel = || kernel.unwrap_or_else(Kernel::best);
    is_xts && !matches!(spec.iv, IvGenerator::Essiv(_)) && kernel() != Kernel::Portable
}

fn form(iv: IvGenerator) -> TweakForm {
    match iv {
        IvGenerator::Plain => TweakForm::Plain,
        IvGenerator::None | IvGenerator::Plain64 | IvGenerator::Essiv(_) => TweakForm::Plain64,
        IvGenerator::Plain64Be => TweakForm::Plain64Be,
    }
}

/// Creates the implementation for a mode, cipher and key size. `check_key_size` has accepted the
/// size.
///
/// Not inlined, so that its copies of the key are on the part of the stack that the caller scrubs.
#[inline(never)]
fn keyed(
    spec: CipherSpec,
    key: &[u8],
    kernel: Option<Kernel>,
) -> Result<Box<dyn SectorCipher>, CryptError> {
    use BlockCipher::{Aes, Camellia, Cast5, Serpent, Twofish, XChaCha12Aes, XChaCha20Aes};
    check_built(spec)?;
    let several = match aes::hardware_accelerated() {
        true => Several::Alone,
        false => Several::Batch,
    };
    let keyed = match (spec.mode, spec.cipher, key.len()) {
        (Mode::Xts, Aes, _) => {
            let kernel = kernel.unwrap_or_else(Kernel::best);
            let xts = Xts::new_in::<Locked, CryptError>(kernel, key)?;
            match spec.iv {
                IvGenerator::Essiv(_) => xts_with_essiv::<aes::Aes256Enc>(xts, key, spec.iv),
                _ => return Ok(Box::new(xts)),
            }
        }
        (Mode::Cbc, Aes, 16) => cbc::<aes::Aes128, aes::Aes256Enc>(key, spec.iv, several),
        (Mode::Cbc, Aes, 24) => cbc::<aes::Aes192, aes::Aes256Enc>(key, spec.iv, several),
        (Mode::Cbc, Aes, _) => cbc::<aes::Aes256, aes::Aes256Enc>(key, spec.iv, several),
        (Mode::Ecb, Aes, 16) => ecb::<aes::Aes128>(key),
        (Mode::Ecb, Aes, 24) => ecb::<aes::Aes192>(key),
        (Mode::Ecb, Aes, _) => ecb::<aes::Aes256>(key),
        (Mode::Adiantum, Aes, _) => None,
        #[cfg(feature = "ciphers")]
        (_, Serpent | Twofish | Camellia | Cast5 | XChaCha12Aes | XChaCha20Aes, _) => {
            ciphers::keyed(spec, key)
        }
        #[cfg(not(feature = "ciphers"))]
        (_, Serpent | Twofish | Camellia | Cast5 | XChaCha12Aes | XChaCha20Aes, _) => {
            return Err(CryptError::Unsupported(spec));
        }
    };
    match keyed {
        Some(cipher) => Ok(cipher?),
        None => Err(CryptError::Key(CipherError::KeySize {
            spec,
            bytes: key.len(),
        })),
    }
}

/// Checks that this build has a cipher and the hash of its IVs.
///
/// # Errors
/// Returns [`CryptError::MissingFeature`] if it does not.
pub(crate) fn check_built(spec: CipherSpec) -> Result<(), CryptError> {
    let missing = |name| Err(MissingFeature::new(name, "ciphers").into());
    match (spec.cipher, spec.iv) {
        _ if cfg!(feature = "ciphers") => Ok(()),
        (BlockCipher::Aes, IvGenerator::Essiv(hash)) if hash != EssivHash::Sha256 => {
            missing(hash.hash().name())
        }
        (BlockCipher::Aes, _) => Ok(()),
        (cipher, _) => missing(cipher.name()),
    }
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
