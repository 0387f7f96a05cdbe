//! The kernels by name.

use std::fmt;
use std::str::FromStr;

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
    /// All kernels, fastest first.
    pub(super) const ALL: [Self; 5] = [
        Self::Vaes512,
        Self::Vaes256,
        Self::Aesni,
        Self::Aarch64,
        Self::Portable,
    ];

    /// The name of the kernel.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Aesni => "aesni",
            Self::Vaes256 => "vaes256",
            Self::Vaes512 => "vaes512",
            Self::Aarch64 => "aarch64",
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
    #[error("unknown xts kernel \"{0}\"")]
    Unknown(String),
    /// This machine lacks the instructions of the kernel.
    #[error("xts kernel {0} needs instructions that this machine lacks")]
    NotAvailable(Kernel),
}
