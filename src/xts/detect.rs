//! Which kernels this machine can run.

#[cfg(target_arch = "aarch64")]
use super::aarch64;
use super::kernel::{Kernel, KernelError};
#[cfg(target_arch = "x86_64")]
use super::x86_64;

/// The environment variable that names the kernel to use.
pub const KERNEL_VARIABLE: &str = "LUKSMITH_XTS";

impl Kernel {
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
}
