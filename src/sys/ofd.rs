//! Open file description locks on single bytes: `F_OFD_SETLK` and `F_OFD_GETLK` of `fcntl(2)`.
//!
//! No wrapper crate provides them. As with `flock(2)`, a lock belongs to the open file description
//! and is released when its last descriptor is closed. No function here waits for a lock.
#![allow(unsafe_code)] // fcntl(2) takes a raw struct flock

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Takes a shared lock on the byte at offset `byte`. Returns `Ok(false)` if another open file has
/// an exclusive lock on it.
///
/// # Errors
/// Returns the error of the system, also if the file system does not support such locks.
pub(crate) fn share_byte(fd: BorrowedFd<'_>, byte: u64) -> io::Result<bool> {
    match fcntl(fd, libc::F_OFD_SETLK, libc::F_RDLCK, byte) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Releases the lock of this open file on the byte at offset `byte`, if it has one.
///
/// # Errors
/// Returns the error of the system.
pub(crate) fn release_byte(fd: BorrowedFd<'_>, byte: u64) -> io::Result<()> {
    fcntl(fd, libc::F_OFD_SETLK, libc::F_UNLCK, byte).map(drop)
}

/// Whether another open file has a shared or exclusive lock on the byte at offset `byte`.
///
/// # Errors
/// Returns the error of the system.
pub(crate) fn byte_is_held(fd: BorrowedFd<'_>, byte: u64) -> io::Result<bool> {
    let answer = fcntl(fd, libc::F_OFD_GETLK, libc::F_WRLCK, byte)?;
    Ok(i32::from(answer.l_type) != libc::F_UNLCK)
}

fn fcntl(fd: BorrowedFd<'_>, command: i32, kind: i32, byte: u64) -> io::Result<libc::flock> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
    // SAFETY: all fields of `flock` are numbers, for which zero is valid. `l_pid` has to be zero.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = i16::try_from(kind).map_err(out_of_range)?;
    lock.l_whence = i16::try_from(libc::SEEK_SET).map_err(out_of_range)?;
    lock.l_start = libc::off_t::try_from(byte).map_err(out_of_range)?;
    lock.l_len = 1;
    loop {
        // SAFETY: the descriptor is borrowed, so it is open. `lock` is valid and outlives the call.
        let result = unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut lock) };
        if result != -1 {
            return Ok(lock);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
