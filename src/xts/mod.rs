//! AES in XTS mode (IEEE Std 1619-2007) over runs of sectors, in place, or from and to the memory
//! of others ([`Windows`]).
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
mod run;
mod tweak;
mod window;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use std::fmt;

pub use error::XtsError;
pub use kernel::{Kernel, KernelError};
use keyed::{Keyed, OutOfPlace};
pub use memory::{Heap, Memory};
#[cfg(feature = "ciphers")]
pub(crate) use portable::Keys as BlockXts;
use run::Run;
pub use tweak::{BLOCK, TweakForm, Tweaks};
pub use window::{Window, Windows};
use zeroize::{Zeroize, Zeroizing};

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

/// The size of the memory for sectors that are not decrypted to their place, in bytes. Larger
/// sectors have one of their size.
const BOUNCE: usize = 4096;

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

    /// Encrypts the sectors in `from` to `into`, which has the same length. Each byte of `from` is
    /// read once.
    ///
    /// # Errors
    /// Returns [`XtsError::SectorSize`], [`XtsError::Length`] or [`XtsError::Windows`]. Then
    /// nothing has changed.
    pub fn encrypt_from(
        &self,
        mut tweaks: Tweaks,
        sector_size: usize,
        mut from: Windows<'_>,
        into: &mut [u8],
    ) -> Result<(), XtsError> {
        check(sector_size, into.len())?;
        check_windows(from, into.len())?;
        let mut rest = into;
        while !rest.is_empty() {
            let (count, kernel) = self.next_run(sector_size, from);
            let (now, later) = rest.split_at_mut(count * sector_size);
            let part = from.take(now.len());
            if let Some(kernel) = kernel {
                kernel.encrypt(tweaks, Run::from_windows(part, now, sector_size));
            } else {
                part.copy_to(now);
                self.encrypt(tweaks, sector_size, now)?;
            }
            tweaks.skip(count);
            rest = later;
        }
        Ok(())
    }

    /// Decrypts the sectors in `from` to `into`, which has the same length. Nothing is read from
    /// `into`, and no ciphertext is written there.
    ///
    /// # Errors
    /// Returns [`XtsError::SectorSize`], [`XtsError::Length`] or [`XtsError::Windows`]. Then
    /// nothing has changed.
    pub fn decrypt_into(
        &self,
        mut tweaks: Tweaks,
        sector_size: usize,
        from: &[u8],
        mut into: Windows<'_>,
    ) -> Result<(), XtsError> {
        check(sector_size, from.len())?;
        check_windows(into, from.len())?;
        let mut bounce = None;
        let mut rest = from;
        while !rest.is_empty() {
            let (count, kernel) = self.next_run(sector_size, into);
            let (now, later) = rest.split_at(count * sector_size);
            let part = into.take(now.len());
            if let Some(kernel) = kernel {
                kernel.decrypt(tweaks, Run::into_windows(now, part, sector_size));
            } else {
                let bounce =
                    bounce.get_or_insert_with(|| Zeroizing::new(vec![0; BOUNCE.max(sector_size)]));
                let plain = &mut bounce[..now.len()];
                plain.copy_from_slice(now);
                self.decrypt(tweaks, sector_size, plain)?;
                part.copy_from(plain);
            }
            tweaks.skip(count);
            rest = later;
        }
        Ok(())
    }

    /// The number of sectors to process next, and the kernel for them if each of them lies in one
    /// window. Other sectors are copied.
    fn next_run(
        &self,
        sector_size: usize,
        windows: Windows<'_>,
    ) -> (usize, Option<&dyn OutOfPlace>) {
        let kernel = self.keyed.out_of_place();
        match kernel.filter(|_| self.keyed.takes(sector_size)) {
            Some(kernel) => match windows.whole_sectors(sector_size) {
                0 => (1, None),
                count => (count, Some(kernel)),
            },
            None => {
                let all = windows.len() / sector_size;
                ((BOUNCE / sector_size).clamp(1, all), None)
            }
        }
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

fn check_windows(windows: Windows<'_>, len: usize) -> Result<(), XtsError> {
    let windows = windows.len();
    if windows != len {
        return Err(XtsError::Windows { len, windows });
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
