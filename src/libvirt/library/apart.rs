//! Calls that carry the value of a secret, so that the library leaves no copy of it.
//!
//! libvirt puts a value into a message, and takes it out of one, and frees the buffers of both as they are. Two things together make
//! them go: malloc overwrites what is freed (`M_PERTURB`, mallopt(3)), for as long as there is an object of the library, since everything
//! else is slower by it; and the call has a thread of its own, because what a thread frees and keeps for itself in small blocks (glibc's
//! tcache) is overwritten only as it ends. The C library has to be glibc.

use std::ffi::c_int;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::libvirt::error::LibvirtError;

/// While there is one of these, what is freed is overwritten, everywhere in the process.
pub(super) struct Overwriting(());

/// How many there are.
static HELD: Mutex<usize> = Mutex::new(0);

impl Overwriting {
    pub(super) fn new() -> Self {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        if *held == 0 {
            overwrite_with(PATTERN);
        }
        *held += 1;
        Self(())
    }
}

impl Drop for Overwriting {
    fn drop(&mut self) {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        *held -= 1;
        if *held == 0 {
            overwrite_with(0);
        }
    }
}

/// Any byte but 0, which turns it off.
const PATTERN: c_int = 0x5a;

fn overwrite_with(pattern: c_int) {
    // SAFETY: it changes what freed and fresh memory holds, which nobody may rely on.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_PERTURB, pattern) };
    #[cfg(not(target_env = "gnu"))]
    let _ = pattern;
}

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
