//! AES in XTS mode (IEEE Std 1619-2007) over runs of sectors, in place.
//!
//! A [`Kernel`] is one implementation; all of them give the same bytes. The fastest one of this
//! machine is used, unless `LUKSMITH_XTS` names another. A sector is any whole number of 16-byte
//! blocks. Ciphertext stealing, which disks do not need, is not supported.
//!
//! This module uses no other module of luksmith, and does no I/O.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod in_place;
mod portable;
mod tweak;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use std::convert::Infallible;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

pub use tweak::{TweakForm, Tweaks};
use zeroize::Zeroize;

/// The size of a cipher block in bytes.
pub const BLOCK: usize = 16;

/// The environment variable that names the kernel to use.
pub const KERNEL_VARIABLE: &str = "LUKSMITH_XTS";

/// One implementation of AES-XTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kernel {
    /// The `aes` crate, which chooses AES-NI, VAES or ARMv8 instructions itself, or constant-time
    /// code where the CPU has none of them.
    Portable,
    /// AES-NI, on x86-64.
    Aesni,
    /// VAES on 256-bit registers, on x86-64 with AVX2.
    Vaes256,
    /// VAES on 512-bit registers, on x86-64 with AVX-512.
    Vaes512,
    /// The AES extension of ARMv8, on aarch64.
    Aarch64,
}

impl Kernel {
    const ALL: [Self; 5] = [
        Self::Vaes512,
        Self::Vaes256,
        Self::Aesni,
        Self::Aarch64,
        Self::Portable,
    ];

    /// The kernels that run on this machine, fastest first.
    pub fn available() -> Vec<Self> {
        let runs = |kernel: &Self| kernel.is_available();
        Self::ALL.into_iter().filter(runs).collect()
    }

    /// The fastest kernel of this machine, or the one that `LUKSMITH_XTS` names.
    ///
    /// # Errors
    /// Returns [`KernelError`] if the variable names no kernel, or one that this machine cannot
    /// run.
    pub fn best() -> Result<Self, KernelError> {
        match std::env::var_os(KERNEL_VARIABLE) {
            None => Ok(Self::fastest()),
            Some(name) => Self::chosen(&name.to_string_lossy()),
        }
    }

    /// The name of the kernel in the environment variable.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Aesni => "aesni",
            Self::Vaes256 => "vaes256",
            Self::Vaes512 => "vaes512",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Runs only the rounds of AES that this kernel would run for `len` bytes.
    ///
    /// A benchmark compares the kernel with this upper bound of its speed. Returns false if there
    /// is no such function: for `portable` and `aarch64`, and where the CPU lacks the instructions.
    pub fn rounds_alone(self, key_size: usize, len: usize) -> bool {
        let rounds = if key_size == 32 { 10 } else { 14 };
        let _ = (rounds, len); // unused on other CPUs
        match self {
            Self::Portable | Self::Aarch64 => None::<()>,
            #[cfg(target_arch = "x86_64")]
            Self::Aesni => {
                x86_64::aesni::Token::detect().map(|token| x86_64::limit::aesni(token, rounds, len))
            }
            #[cfg(target_arch = "x86_64")]
            Self::Vaes256 => x86_64::vaes256::Token::detect()
                .map(|token| x86_64::limit::vaes256(token, rounds, len)),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes512 => x86_64::vaes512::Token::detect()
                .map(|token| x86_64::limit::vaes512(token, rounds, len)),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Aesni | Self::Vaes256 | Self::Vaes512 => None,
        }
        .is_some()
    }

    fn chosen(name: &str) -> Result<Self, KernelError> {
        let kernel: Self = name.parse()?;
        if !kernel.is_available() {
            return Err(KernelError::NotAvailable(kernel));
        }
        Ok(kernel)
    }

    fn fastest() -> Self {
        let mut kernels = Self::ALL.into_iter();
        kernels
            .find(|kernel| kernel.is_available())
            .unwrap_or(Self::Portable)
    }

    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Aesni => x86_64::aesni::Token::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes256 => x86_64::vaes256::Token::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes512 => x86_64::vaes512::Token::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Aesni | Self::Vaes256 | Self::Vaes512 => false,
            #[cfg(target_arch = "aarch64")]
            Self::Aarch64 => aarch64::Token::detect().is_some(),
            #[cfg(not(target_arch = "aarch64"))]
            Self::Aarch64 => false,
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kernel {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        let known = Self::ALL.into_iter().find(|kernel| kernel.name() == name);
        known.ok_or_else(|| KernelError::Unknown(name.into()))
    }
}

/// Why a requested kernel is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// There is no kernel with this name.
    #[error("unknown xts kernel {0:?}")]
    Unknown(String),
    /// This machine lacks the instructions of the kernel.
    #[error("xts kernel {0} needs instructions that this machine lacks")]
    NotAvailable(Kernel),
}

/// Why a request was refused. The data is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XtsError {
    /// The key has a wrong size: AES-XTS has keys of 32 bytes (AES-128) and 64 bytes (AES-256).
    #[error("an aes-xts key has 32 or 64 bytes, not {0}")]
    KeySize(usize),
    /// This machine lacks the instructions of the kernel.
    #[error("xts kernel {0} needs instructions that this machine lacks")]
    NotAvailable(Kernel),
    /// The sector size is zero or not a whole number of blocks.
    #[error("a sector of {0} bytes is not a whole number of 16-byte blocks")]
    SectorSize(usize),
    /// The data is not a whole number of sectors.
    #[error("{len} bytes are not whole sectors of {sector_size}")]
    Length {
        /// The length of the data, in bytes.
        len: usize,
        /// The size of a sector, in bytes.
        sector_size: usize,
    },
}

/// The memory in which key schedules are kept.
///
/// The caller chooses it. This module itself only provides [`Heap`].
pub trait Memory {
    /// An owned value that does not move when its owner moves, and is wiped when it is dropped.
    type Held<T: Send + Sync + 'static>: Deref<Target = T> + Send + Sync + 'static;

    /// Why such memory is not available.
    type Error;

    /// Moves a value into such memory.
    ///
    /// # Errors
    /// Returns an error if no such memory is available.
    fn hold<T: Send + Sync + 'static>(value: T) -> Result<Self::Held<T>, Self::Error>;
}

/// Ordinary memory, which may be swapped out. Key schedules in it are wiped when they are dropped.
#[derive(Clone, Copy, Debug)]
pub struct Heap;

impl Memory for Heap {
    type Held<T: Send + Sync + 'static> = Box<T>;
    type Error = Infallible;

    fn hold<T: Send + Sync + 'static>(value: T) -> Result<Box<T>, Infallible> {
        Ok(Box::new(value))
    }
}

impl From<Infallible> for XtsError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// AES-XTS with a key.
///
/// Moving this value leaves no copy of the key schedule, and dropping it wipes the schedule. The
/// key is expanded on the stack, so a caller that needs this scrubs the stack after creating the
/// value.
pub struct Xts {
    keyed: Box<dyn Keyed>,
}

/// The largest step of any kernel, in bytes. Every step is a power of two.
const LARGEST_STEP: usize = 512;

/// A kernel with its key schedules. The caller passes only sector sizes for which `takes` is true,
/// and data that is a whole number of sectors.
trait Keyed: Send + Sync {
    /// Whether a sector of this size is a whole number of the kernel's steps.
    fn takes(&self, sector_size: usize) -> bool;
    fn encrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]);
    fn decrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]);
}

impl Xts {
    /// Expands `key`, the data key followed by the tweak key, on the heap.
    ///
    /// # Errors
    /// Returns [`XtsError::KeySize`], or [`XtsError::NotAvailable`] if this machine cannot run the
    /// kernel.
    pub fn new(kernel: Kernel, key: &[u8]) -> Result<Self, XtsError> {
        Self::new_in::<Heap, _>(kernel, key)
    }

    /// Expands `key`, the data key followed by the tweak key, in memory of kind `M`.
    ///
    /// # Errors
    /// The same as for [`new`](Self::new), and the error of `M` if no such memory is available.
    pub fn new_in<M, E>(kernel: Kernel, key: &[u8]) -> Result<Self, E>
    where
        M: Memory + 'static,
        E: From<XtsError> + From<M::Error>,
    {
        let missing = XtsError::NotAvailable(kernel);
        let keyed: Box<dyn Keyed> = match kernel {
            Kernel::Portable => Box::new(portable::Xts::<M>::new::<E>(key)?),
            #[cfg(target_arch = "x86_64")]
            Kernel::Aesni => {
                let token = x86_64::aesni::Token::detect().ok_or(missing)?;
                Box::new(x86_64::aesni::Xts::<M>::new::<E>(token, key)?)
            }
            #[cfg(target_arch = "x86_64")]
            Kernel::Vaes256 => {
                let token = x86_64::vaes256::Token::detect().ok_or(missing)?;
                Box::new(x86_64::vaes256::Xts::<M>::new::<E>(token, key)?)
            }
            #[cfg(target_arch = "x86_64")]
            Kernel::Vaes512 => {
                let token = x86_64::vaes512::Token::detect().ok_or(missing)?;
                Box::new(x86_64::vaes512::Xts::<M>::new::<E>(token, key)?)
            }
            #[cfg(not(target_arch = "x86_64"))]
            Kernel::Aesni | Kernel::Vaes256 | Kernel::Vaes512 => return Err(missing.into()),
            #[cfg(target_arch = "aarch64")]
            Kernel::Aarch64 => {
                let token = aarch64::Token::detect().ok_or(missing)?;
                Box::new(aarch64::Xts::<M>::new::<E>(token, key)?)
            }
            #[cfg(not(target_arch = "aarch64"))]
            Kernel::Aarch64 => return Err(missing.into()),
        };
        Ok(Self { keyed })
    }

    /// Encrypts the sectors in `data`. The first sector uses the first of `tweaks`.
    ///
    /// # Errors
    /// Returns [`XtsError::SectorSize`] or [`XtsError::Length`].
    pub fn encrypt(
        &self,
        tweaks: Tweaks,
        sector_size: usize,
        data: &mut [u8],
    ) -> Result<(), XtsError> {
        check(sector_size, data.len())?;
        let turn = |tweaks, size, data: &mut [u8]| self.keyed.encrypt(tweaks, size, data);
        self.in_steps(tweaks, sector_size, data, turn);
        Ok(())
    }

    /// Decrypts the sectors in `data`. The first sector uses the first of `tweaks`.
    ///
    /// # Errors
    /// Returns [`XtsError::SectorSize`] or [`XtsError::Length`].
    pub fn decrypt(
        &self,
        tweaks: Tweaks,
        sector_size: usize,
        data: &mut [u8],
    ) -> Result<(), XtsError> {
        check(sector_size, data.len())?;
        let turn = |tweaks, size, data: &mut [u8]| self.keyed.decrypt(tweaks, size, data);
        self.in_steps(tweaks, sector_size, data, turn);
        Ok(())
    }

    /// Processes sectors of any size.
    ///
    /// A sector size that is not a whole number of steps does not occur in volumes. Such sectors
    /// are processed one by one, in a padded buffer.
    fn in_steps(
        &self,
        mut tweaks: Tweaks,
        sector_size: usize,
        data: &mut [u8],
        turn: impl Fn(Tweaks, usize, &mut [u8]),
    ) {
        if self.keyed.takes(sector_size) || data.is_empty() {
            return turn(tweaks, sector_size, data);
        }
        let mut buffer = vec![0; sector_size.next_multiple_of(LARGEST_STEP)];
        for sector in data.chunks_exact_mut(sector_size) {
            buffer[..sector_size].copy_from_slice(sector);
            turn(tweaks, buffer.len(), &mut buffer);
            sector.copy_from_slice(&buffer[..sector_size]);
            tweaks.next_tweak();
        }
        buffer.zeroize();
    }
}

impl fmt::Debug for Xts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Xts { .. }")
    }
}

fn check(sector_size: usize, len: usize) -> Result<(), XtsError> {
    if sector_size == 0 || !sector_size.is_multiple_of(BLOCK) {
        return Err(XtsError::SectorSize(sector_size));
    }
    if !len.is_multiple_of(sector_size) {
        return Err(XtsError::Length { len, sector_size });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_have_names() {
        for kernel in Kernel::ALL {
            assert_eq!(kernel.name().parse(), Ok(kernel));
        }
        assert_eq!(Kernel::chosen("portable"), Ok(Kernel::Portable));
        assert_eq!(
            Kernel::chosen("sse"),
            Err(KernelError::Unknown("sse".into()))
        );
        assert!(Kernel::available().contains(&Kernel::Portable));
    }

    #[test]
    fn wrong_sizes_are_refused_and_change_nothing() {
        for kernel in Kernel::available() {
            for len in [0, 16, 31, 48, 63, 65, 128] {
                assert_eq!(
                    Xts::new(kernel, &vec![0; len]).unwrap_err(),
                    XtsError::KeySize(len)
                );
            }
            let xts = Xts::new(kernel, &[1; 32]).unwrap();
            let tweaks = Tweaks::new(0, 1, TweakForm::Plain64);
            for (sector_size, len, error) in [
                (0, 0, XtsError::SectorSize(0)),
                (15, 15, XtsError::SectorSize(15)),
                (17, 17, XtsError::SectorSize(17)),
                (513, 513, XtsError::SectorSize(513)),
                (
                    512,
                    528,
                    XtsError::Length {
                        len: 528,
                        sector_size: 512,
                    },
                ),
            ] {
                let mut data = vec![9; len];
                assert_eq!(xts.encrypt(tweaks, sector_size, &mut data), Err(error));
                assert_eq!(xts.decrypt(tweaks, sector_size, &mut data), Err(error));
                assert_eq!(data, vec![9; len]);
            }
            assert_eq!(xts.encrypt(tweaks, 512, &mut []), Ok(()));
        }
    }
}
