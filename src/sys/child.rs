//! What a child process gets of this process: a program by its descriptor, descriptor 3, and no
//! other descriptors besides the standard ones.

#![allow(unsafe_code)] // system calls between fork and exec

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};

/// The descriptor that carries a secret.
const THIRD: RawFd = 3;

/// The lowest number of a descriptor that [`Passed`] duplicates, so that none of them is [`THIRD`].
const HIGH: RawFd = 10;

/// The descriptors that a child process gets besides the standard ones.
pub(crate) struct Passed {
    program: OwnedFd,
    third: Option<OwnedFd>,
    /// Keeps [`THIRD`] in use, so that the standard library does not use it for its own pipe to
    /// the child process.
    _held: OwnedFd,
    /// Those without `FD_CLOEXEC`, which this process has inherited itself.
    others: Vec<RawFd>,
}

impl Passed {
    /// The child process can execute `program` as [`path`](Self::path), and has `third` as its
    /// descriptor 3.
    ///
    /// # Errors
    /// Failed system calls.
    pub(crate) fn new(program: impl AsFd, third: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let held = fcntl_dupfd_cloexec(&program, THIRD)?;
        let third = third.map(|third| fcntl_dupfd_cloexec(third, HIGH));
        Ok(Self {
            program: fcntl_dupfd_cloexec(program, HIGH)?,
            third: third.transpose()?,
            _held: held,
            others: inherited()?,
        })
    }

    /// The path by which the child process executes the program. The interpreter of a script opens
    /// it again.
    pub(crate) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.program.as_raw_fd())
    }

    /// Makes the command start in a session and process group of its own, without a terminal, and
    /// with these descriptors only. They have to live until it is started.
    pub(crate) fn prepare(&self, command: &mut Command) {
        let program = self.program.as_raw_fd();
        let third = self.third.as_ref().map(AsRawFd::as_raw_fd);
        let others = self.others.clone();
        // SAFETY: the closure only makes system calls on numbers, and allocates nothing.
        unsafe {
            command.pre_exec(move || prepare(program, third, &others));
        }
    }
}

/// The descriptors from 3 on that a child process would inherit.
fn inherited() -> io::Result<Vec<RawFd>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse::<RawFd>().ok());
        let Some(number) = number.filter(|number| *number >= THIRD) else {
            continue;
        };
        // SAFETY: the number is not −1, and is only looked at. If it is not open, the call fails.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        if fcntl_getfd(fd).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
            found.push(number);
        }
    }
    Ok(found)
}

/// Runs in the child process, between fork and exec.
fn prepare(program: RawFd, third: Option<RawFd>, others: &[RawFd]) -> io::Result<()> {
    rustix::process::setsid()?;
    for other in others {
        // SAFETY: the number is not −1. If it is not open, the call fails.
        let other = unsafe { BorrowedFd::borrow_raw(*other) };
        // It may have been closed since it was listed.
        let _ = fcntl_setfd(other, FdFlags::CLOEXEC);
    }
    // SAFETY: the parent process keeps it open until the child process executes it.
    let program = unsafe { BorrowedFd::borrow_raw(program) };
    fcntl_setfd(program, FdFlags::empty())?;
    if let Some(third) = third {
        // SAFETY: only replaces descriptor 3, which this process does not use any more.
        if unsafe { libc::dup2(third, THIRD) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
