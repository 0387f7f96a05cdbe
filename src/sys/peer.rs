//! The process at the other end of a Unix socket: `SO_PEERCRED` of `unix(7)`.
#![allow(unsafe_code)] // getsockopt(2) fills a struct through a pointer

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The process, user and group that connected. The process is 0 if it is in a PID namespace that
/// this process does not see; the wrapper of `rustix` has no value for that.
///
/// # Errors
/// Returns the error of the system.
pub(crate) fn credentials(fd: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let size = size_of::<libc::ucred>();
    let mut len = libc::socklen_t::try_from(size)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the descriptor is borrowed, so it is open. `peer` is valid for `len` bytes, and both
    // outlive the call.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    match result {
        0 => Ok(peer),
        _ => Err(io::Error::last_os_error()),
    }
}
