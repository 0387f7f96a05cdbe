//! AES in XTS mode (IEEE Std 1619-2007) over runs of sectors, in place.
//!
//! A [`Kernel`] is one implementation; all of them give the same bytes. The fastest one of this
//! machine is used, unless the program chooses another. A sector is any whole number of 16-byte
//! blocks. Ciphertext stealing, which disks do not need, is not supported.
//!
//! This module uses no other module of luksmith, and does no I/O.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod detect;
mod error;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod in_place;
mod kernel;
mod keyed;
mod memory;
mod portable;
mod tweak;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use std::fmt;

pub use error::XtsError;
pub use kernel::{Kernel, KernelError};
use keyed::Keyed;
pub use memory::{Heap, Memory};
pub use tweak::{BLOCK, TweakForm, Tweaks};
use zeroize::Zeroize;

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
    fn wrong_sizes_are_refused_and_change_nothing() {
        for kernel in Kernel::available() {
            for len in [0, 16, 31, 33, 47, 49, 63, 65, 96, 128] {
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
