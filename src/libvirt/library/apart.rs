//! Calls that carry the value of a secret, made so that the library leaves no copy of it in freed
//! memory.
//!
//! libvirt encodes a value into a message or decodes it from one, and frees the buffers without
//! wiping them. Two measures together wipe them:
//!
//! - malloc overwrites all freed memory (`M_PERTURB`, mallopt(3)). It does so only while an object
//!   of the library exists, because it slows down the rest of the program.
//! - The call runs on a thread of its own. glibc keeps small freed blocks for the thread that freed
//!   them (tcache), and overwrites these only when the thread ends.
//!
//! Both need glibc.

use std::ffi::c_int;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::libvirt::error::LibvirtError;

/// While one of these exists, freed memory is overwritten, in the whole process.
pub(super) struct Overwriting(());

/// How many exist.
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

/// Any byte except 0, which turns it off.
const PATTERN: c_int = 0x5a;

fn overwrite_with(pattern: c_int) {
    // SAFETY: it changes the contents of freed and fresh memory, on which no code may rely.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_PERTURB, pattern) };
    #[cfg(not(target_env = "gnu"))]
    let _ = pattern;
}

/// Makes a call on a new thread, which ends with the call.
pub(super) fn apart<T: Send>(
    call: impl FnOnce() -> Result<T, LibvirtError> + Send,
) -> Result<T, LibvirtError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, call);
        let thread = thread.map_err(LibvirtError::Thread)?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
