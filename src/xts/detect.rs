//! Which kernels this machine can run, and which one this process uses.

use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(target_arch = "aarch64")]
use super::aarch64;
use super::kernel::{Kernel, KernelError};
#[cfg(target_arch = "x86_64")]
use super::x86_64;

/// The kernel that [`Kernel::set_default`] chose last, by its place among all; no place at first.
static DEFAULT: AtomicUsize = AtomicUsize::new(usize::MAX);

impl Kernel {
    /// The kernels that run on this machine, fastest first.
    pub fn available() -> Vec<Self> {
        let runs = |kernel: &Self| kernel.is_available();
        Self::ALL.into_iter().filter(runs).collect()
    }

    /// The kernel that this process uses by default: the fastest of this machine, unless
    /// [`set_default`](Self::set_default) chose another.
    pub fn best() -> Self {
        let chosen = Self::ALL.get(DEFAULT.load(Ordering::Relaxed));
        chosen.copied().unwrap_or_else(Self::fastest)
    }

    /// Makes this kernel the default of the process, for comparison and for tests. Ciphers that
    /// have a key already keep their kernel.
    ///
    /// # Errors
    /// Returns [`KernelError::NotAvailable`] if this machine cannot run it.
    pub fn set_default(self) -> Result<(), KernelError> {
        if !self.is_available() {
            return Err(KernelError::NotAvailable(self));
        }
        let place = Self::ALL.iter().position(|kernel| *kernel == self);
        DEFAULT.store(place.unwrap_or(usize::MAX), Ordering::Relaxed);
        Ok(())
    }

    /// What computes AES in this kernel on this machine. That of [`Portable`](Self::Portable) is
    /// what the `aes` crate has chosen.
    pub fn implementation(self) -> &'static str {
        match self {
            Self::Portable => aes_crate(),
            Self::Aesni => "AES-NI",
            Self::Vaes256 => "VAES, 256 bit",
            Self::Vaes512 => "VAES, 512 bit",
            Self::Aarch64 => "ARMv8 AES",
        }
    }

    /// Runs only the rounds of AES that this kernel would run for `len` bytes.
    ///
    /// A benchmark compares the kernel with this upper bound of its speed. Returns false if there
    /// is no such function: for `portable` and `aarch64`, and where the CPU lacks the instructions.
    pub fn rounds_alone(self, key_size: usize, len: usize) -> bool {
        let rounds = match key_size {
            32 => 10,
            48 => 12,
            _ => 14,
        };
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

/// What the `aes` crate chooses on this machine. It does not tell, so this repeats its conditions.
fn aes_crate() -> &'static str {
    if !aes::hardware_accelerated() {
        return "aes crate, software";
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("vaes") {
        return if is_x86_feature_detected!("avx512f") {
            "aes crate, VAES, 512 bit"
        } else {
            "aes crate, VAES, 256 bit"
        };
    }
    if cfg!(target_arch = "aarch64") {
        "aes crate, ARMv8 AES"
    } else {
        "aes crate, AES-NI"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_have_names() {
        for kernel in Kernel::ALL {
            assert_eq!(kernel.name().parse(), Ok(kernel));
        }
        let unknown = KernelError::Unknown("sse".into());
        assert_eq!("sse".parse::<Kernel>(), Err(unknown));
        assert!(Kernel::available().contains(&Kernel::Portable));
    }

    #[test]
    fn only_what_runs_here_becomes_the_default() {
        let available = Kernel::available();
        for kernel in Kernel::ALL
            .into_iter()
            .filter(|one| !available.contains(one))
        {
            let refused = KernelError::NotAvailable(kernel);
            assert_eq!(kernel.set_default(), Err(refused));
        }
        let usual = Kernel::best();
        assert_eq!(usual, available[0]);
        assert_eq!(Kernel::Portable.set_default(), Ok(()));
        assert_eq!(Kernel::best(), Kernel::Portable);
        assert_eq!(usual.set_default(), Ok(()));
    }
}
