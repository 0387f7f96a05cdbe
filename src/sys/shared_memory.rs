//! Memory that another process shares, and may take away: it can shorten the file behind a mapping
//! at any time. An access to pages beyond the end of the file raises SIGBUS, which ends a process
//! that does not handle it.
//!
//! A [`Claim`] says which mapping is shared. The handler replaces a claimed mapping whose pages are
//! gone by private memory that is zero, so that the access ends, and notes that it has done so. Any
//! other SIGBUS goes to the handler that was there before.

#![allow(unsafe_code)] // sigaction(2), and mmap(2) in a signal handler

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libc::{c_int, c_void, sigaction, siginfo_t};

/// The most mappings that are claimed at once, in the whole process.
const CLAIMS: usize = 4096;

struct Slot {
    /// Whether a claim owns this slot.
    taken: AtomicBool,
    start: AtomicUsize,
    /// The length in bytes. It is 0 while the slot does not count.
    len: AtomicUsize,
    lost: AtomicBool,
}

static SLOTS: [Slot; CLAIMS] = [const {
    Slot {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; CLAIMS];

/// A shared mapping whose pages may be taken away. It ends before the mapping does.
#[derive(Debug)]
pub(crate) struct Claim(&'static Slot);

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slot")
    }
}

impl Claim {
    /// Claims `len` bytes from `start` on, which are whole pages of one mapping.
    ///
    /// # Errors
    /// Too many claims, and the errors of the system.
    pub(crate) fn new(start: *mut u8, len: usize) -> io::Result<Self> {
        handle()?;
        let free = SLOTS
            .iter()
            .find(|slot| !slot.taken.swap(true, Ordering::AcqRel));
        let Some(slot) = free else {
            return Err(io::Error::other("too many shared mappings"));
        };
        slot.lost.store(false, Ordering::Relaxed);
        slot.start.store(start.addr(), Ordering::Relaxed);
        slot.len.store(len, Ordering::Release);
        Ok(Self(slot))
    }

    /// Whether pages of the mapping were taken away. All of it is zero since then, and no other
    /// process sees what is written there.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost().load(Ordering::Acquire)
    }

    /// The flag of [`is_lost`](Self::is_lost), which becomes true before a zero is read.
    pub(crate) fn lost(&self) -> &AtomicBool {
        &self.0.lost
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.len.store(0, Ordering::Release);
        self.0.taken.store(false, Ordering::Release);
    }
}

/// The handler that was there before.
static BEFORE: OnceLock<Before> = OnceLock::new();

/// Installs the handler, once in a process.
fn handle() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: a `sigaction` of zeroes is valid: the default action, without a mask.
        let mut before: sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut action: sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: without a new action the call only fills `before`, which is valid for that.
        let asked = unsafe { sigaction(libc::SIGBUS, ptr::null(), &raw mut before) };
        if asked != 0 {
            return Err(errno());
        }
        // It is set before the handler can run.
        let _ = BEFORE.set(Before(before));
        // SAFETY: both are valid, and the handler does only what is allowed in one.
        match unsafe { sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(errno()),
        }
    });
    installed.map_err(io::Error::from_raw_os_error)
}

/// A handler of the program or of the standard library.
struct Before(sigaction);

// SAFETY: it is only read, and its pointers are to functions.
unsafe impl Send for Before {}
// SAFETY: as above.
unsafe impl Sync for Before {}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid `info`, and nothing else uses it meanwhile.
    let about = unsafe { &*info };
    // SAFETY: the information about a SIGBUS has an address.
    let address = unsafe { about.si_addr() };
    if replace(address.addr()) {
        return;
    }
    let before = BEFORE.get().map(|before| &before.0);
    match before.map(|before| (before.sa_sigaction, before.sa_flags & libc::SA_SIGINFO)) {
        Some((handler, flags)) if handler != libc::SIG_DFL && handler != libc::SIG_IGN => {
            if flags != 0 {
                type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
                // SAFETY: with SA_SIGINFO it is a function with these arguments.
                let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
                handler(signal, info, context);
            } else {
                // SAFETY: without SA_SIGINFO it is a function with this argument.
                let handler =
                    unsafe { std::mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
                handler(signal);
            }
        }
        // The access is repeated, and the process ends as it would have without this handler.
        _ => {
            // SAFETY: signal(2) may be called in a handler.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}

/// Replaces the claimed mapping with this address by private memory. Returns false if there is none
/// or the kernel refuses.
fn replace(address: usize) -> bool {
    let found = SLOTS.iter().find_map(|slot| {
        let len = slot.len.load(Ordering::Acquire);
        let start = slot.start.load(Ordering::Relaxed);
        (address.wrapping_sub(start) < len).then_some((slot, start, len))
    });
    let Some((slot, start, len)) = found else {
        return false;
    };
    slot.lost.store(true, Ordering::Release);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    let start = ptr::with_exposed_provenance_mut::<c_void>(start);
    // SAFETY: errno belongs to the thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let kept = unsafe { *errno };
    // SAFETY: the range is a mapping that its owner has claimed for this, and that is accessed only
    // through raw pointers. It stays mapped, with other content.
    let mapped = unsafe { libc::mmap(start, len, protection, flags, -1, 0) };
    // SAFETY: as above.
    unsafe { *errno = kept };
    mapped != libc::MAP_FAILED
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn memory_that_is_taken_away_becomes_zero() {
        let file = tempfile::tempfile().unwrap();
        let len = 8 * rustix::param::page_size();
        file.set_len(len as u64).unwrap();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of an open file changes no other memory.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        let start = start.cast::<u8>();
        let claim = Claim::new(start, len).unwrap();
        // SAFETY: the page is mapped.
        unsafe { start.write_volatile(7) };
        assert!(!claim.is_lost());
        file.set_len(0).unwrap();
        // SAFETY: the address is mapped.
        let last = unsafe { start.add(len - 1) };
        // SAFETY: the handler replaces the page.
        assert_eq!(unsafe { last.read_volatile() }, 0);
        assert!(claim.is_lost());
        // SAFETY: as above.
        assert_eq!(unsafe { start.read_volatile() }, 0);
        drop(claim);
        // SAFETY: nothing uses the mapping any more.
        assert_eq!(unsafe { libc::munmap(start.cast(), len) }, 0);
    }
}
