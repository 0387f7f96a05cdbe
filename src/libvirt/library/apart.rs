//! Calls that carry the value of a secret, so that the library leaves no copy of it.
//!
//! libvirt puts a value into a message, and takes it out of one, and frees the buffers of both as they are. Two things together make
//! them go: malloc overwrites what is freed (`M_PERTURB`, mallopt(3)), and the call has a thread of its own, because what a thread frees
//! and keeps for itself in small blocks (glibc's tcache) is overwritten only as it ends. The C library has to be glibc.

use std::thread;

use crate::libvirt::error::LibvirtError;

/// From now on, for the rest of the process, what is freed is overwritten.
pub(super) fn overwrite_what_is_freed() {
    // SAFETY: it changes what freed and fresh memory holds, which nobody may rely on.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_PERTURB, PATTERN) };
}

/// Any byte but 0, which turns it off.
#[cfg(target_env = "gnu")]
const PATTERN: libc::c_int = 0x5a;

/// Makes a call on a thread that ends with it.
pub(super) fn apart<T: Send>(
    call: impl FnOnce() -> Result<T, LibvirtError> + Send,
) -> Result<T, LibvirtError> {
    thread::scope(|scope| {
        let alone = thread::Builder::new().spawn_scoped(scope, call);
        let alone = alone.map_err(LibvirtError::Thread)?;
        alone
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
