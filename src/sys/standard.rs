//! Which of stdin, stdout and stderr were closed when the program started.
//!
//! Rust's runtime opens `/dev/null` in place of a closed one before `main`, so that no other file
//! gets its number. What is then written to stdout is lost, and no call fails. So this looks before
//! the runtime does, as the first code of the process.
#![allow(unsafe_code)] // a function that the loader calls, and descriptors by their numbers

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU8, Ordering};

/// One bit for each descriptor that was closed.
static CLOSED: AtomicU8 = AtomicU8::new(0);

// SAFETY: the loader calls the functions of this section, one after the other, before `main`. This
// one needs nothing that the runtime prepares: it makes system calls and sets an atomic number.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    for number in 0..3 {
        // SAFETY: the call takes any number, and changes nothing.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << number, Ordering::Relaxed);
        }
    }
}

/// Leaves the terminal and its session, and lets the standard descriptors lead nowhere.
///
/// # Errors
/// Failed system calls. A process that leads a group of processes cannot leave its session.
pub(crate) fn leave_terminal() -> std::io::Result<()> {
    rustix::process::setsid()?;
    let nothing = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for number in 0..3 {
        // SAFETY: the first descriptor is open, and the three others belong to the whole process:
        // no file of Rust owns them.
        if unsafe { libc::dup2(nothing.as_raw_fd(), number) } == -1 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether stdin was closed when the program started.
#[must_use]
pub fn stdin_was_closed() -> bool {
    CLOSED.load(Ordering::Relaxed) & 1 != 0
}

/// Whether stdout was closed when the program started.
#[must_use]
pub fn stdout_was_closed() -> bool {
    CLOSED.load(Ordering::Relaxed) & 2 != 0
}
