//! Which kernel of AES-XTS the environment names, for comparison.

use luksmith::xts::{Kernel, KernelError};

/// The variable that names one.
const VARIABLE: &str = "LUKSMITH_XTS";

/// The kernel that the environment names, if it names one.
pub(crate) fn named() -> Result<Option<Kernel>, KernelError> {
    std::env::var_os(VARIABLE)
        .map(|name| name.to_string_lossy().parse())
        .transpose()
}

/// Makes that kernel the one of the whole program.
pub(crate) fn choose() -> Result<(), KernelError> {
    named()?.map_or(Ok(()), Kernel::set_default)
}
