//! The kernel of AES-XTS that the environment names, for comparing kernels.

use luksmith::xts::{Kernel, KernelError};

/// The environment variable.
const VARIABLE: &str = "LUKSMITH_XTS";

/// The kernel that the environment names, if it names one.
pub(crate) fn named() -> Result<Option<Kernel>, KernelError> {
    std::env::var_os(VARIABLE)
        .map(|name| name.to_string_lossy().parse())
        .transpose()
}

/// Makes that kernel the default of the whole program.
pub(crate) fn choose() -> Result<(), KernelError> {
    named()?.map_or(Ok(()), Kernel::set_default)
}
