//! Open-file-description locks on single bytes (`fcntl(2)`, `F_OFD_SETLK` and `F_OFD_GETLK`), which no wrapper
//! crate has. They belong to the open file, as those of `flock(2)` do, and go with its last descriptor.
//!
//! This module never waits for a lock.
#![allow(unsafe_code)] // the raw fcntl(2) with its struct flock

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Takes a shared lock on the byte at `byte`. `Ok(false)`: somebody has it exclusively.
///
/// # Errors
/// What the system says, also where the file system knows no such locks.
pub(crate) fn share_byte(fd: BorrowedFd<'_>, byte: u64) -> io::Result<bool> {
    match fcntl(fd, libc::F_OFD_SETLK, libc::F_RDLCK, byte) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Gives up this open file's lock on the byte at `byte`, if it has one.
///
/// # Errors
/// What the system says.
pub(crate) fn release_byte(fd: BorrowedFd<'_>, byte: u64) -> io::Result<()> {
    fcntl(fd, libc::F_OFD_SETLK, libc::F_UNLCK, byte).map(drop)
}

/// Whether another open file has any lock on the byte at `byte`, so that an exclusive one would not be given.
///
/// # Errors
/// What the system says.
pub(crate) fn byte_is_held(fd: BorrowedFd<'_>, byte: u64) -> io::Result<bool> {
    let answer = fcntl(fd, libc::F_OFD_GETLK, libc::F_WRLCK, byte)?;
    Ok(i32::from(answer.l_type) != libc::F_UNLCK)
}

fn fcntl(fd: BorrowedFd<'_>, command: i32, kind: i32, byte: u64) -> io::Result<libc::flock> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
    // SAFETY: `flock` is a struct of plain numbers, for which zero is a value; `l_pid` must be zero here.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = i16::try_from(kind).map_err(out_of_range)?;
    lock.l_whence = i16::try_from(libc::SEEK_SET).map_err(out_of_range)?;
    lock.l_start = libc::off_t::try_from(byte).map_err(out_of_range)?;
    lock.l_len = 1;
    loop {
        // SAFETY: the descriptor is borrowed and so open; `lock` is a valid struct flock that lives over the call.
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
