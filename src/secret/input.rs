//! Reads bytes from a descriptor into locked memory, without a `String` or a buffered reader that
//! would keep a copy.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io;

use super::error::SecretError;
use super::locked::LockedBytes;
use crate::Interrupt;

/// The interval at which a wait checks the interrupt: 100 ms.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// A descriptor that a secret is read from.
pub(super) struct Input<'a> {
    pub(super) fd: BorrowedFd<'a>,
    /// The source in the user's words, for errors.
    pub(super) from: &'a str,
    pub(super) interrupt: &'a Interrupt,
}

impl Input<'_> {
    /// Reads all bytes up to the end, at most `limit`.
    pub(super) fn to_end(&self, limit: usize) -> Result<LockedBytes, SecretError> {
        let mut read = Growing::default();
        loop {
            let n = self.some(read.free(limit, self.from)?)?;
            if n == 0 {
                break;
            }
            read.used += n;
        }
        if read.used == 0 {
            return Err(self.nothing());
        }
        read.finish()
    }

    /// Reads one line of at most `limit` bytes, without its newline. Nothing after the newline is
    /// consumed.
    pub(super) fn line(&self, limit: usize) -> Result<LockedBytes, SecretError> {
        let mut read = Growing::default();
        loop {
            let free = read.free(limit, self.from)?;
            let byte = free.get_mut(..1).unwrap_or_default();
            if self.some(byte)? == 0 {
                if read.used == 0 {
                    return Err(self.nothing());
                }
                break;
            }
            if byte == b"\n" {
                byte.fill(0);
                break;
            }
            read.used += 1;
        }
        read.finish()
    }

    /// Fills `into` as far as the input goes, and returns the number of bytes.
    pub(super) fn fill(&self, into: &mut [u8]) -> Result<usize, SecretError> {
        let mut filled = 0;
        while filled < into.len() {
            match self.some(&mut into[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    /// Waits until there is input, then reads once. 0 bytes mean the end.
    pub(super) fn some(&self, into: &mut [u8]) -> Result<usize, SecretError> {
        loop {
            if self.interrupt.is_set() {
                return Err(SecretError::Interrupted);
            }
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&LOOK)) {
                Ok(0) | Err(io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(self.failed(errno)),
            }
            match io::read(self.fd, &mut *into) {
                Ok(n) => return Ok(n),
                Err(io::Errno::INTR | io::Errno::AGAIN) => {}
                Err(errno) => return Err(self.failed(errno)),
            }
        }
    }

    pub(super) fn nothing(&self) -> SecretError {
        SecretError::Nothing {
            from: self.from.to_owned(),
        }
    }

    fn failed(&self, errno: io::Errno) -> SecretError {
        SecretError::Io {
            from: self.from.to_owned(),
            source: errno.into(),
        }
    }
}

/// A growing buffer in locked memory. A block that it outgrows is wiped.
#[derive(Default)]
pub(crate) struct Growing {
    bytes: Option<LockedBytes>,
    pub(crate) used: usize,
}

impl Growing {
    /// The free part, which has at least one byte. It reaches one byte beyond `limit`, so that a
    /// reader sees whether the input ends at the limit.
    pub(crate) fn free(&mut self, limit: usize, from: &str) -> Result<&mut [u8], SecretError> {
        if self.used > limit {
            return Err(SecretError::TooLong {
                from: from.to_owned(),
                limit,
            });
        }
        let bytes = match self.bytes.take() {
            None => LockedBytes::new(512)?,
            Some(full) if self.used == full.len() => {
                let mut more = LockedBytes::new(self.used * 2)?;
                more[..self.used].copy_from_slice(&full);
                more
            }
            Some(bytes) => bytes,
        };
        let end = bytes.len().min(limit + 1);
        let bytes = self.bytes.insert(bytes);
        Ok(&mut bytes[self.used..end])
    }

    /// What is in use.
    #[cfg(feature = "nbd")]
    pub(crate) fn bytes(&self) -> &[u8] {
        let bytes = self.bytes.as_deref().unwrap_or_default();
        bytes.get(..self.used).unwrap_or_default()
    }

    pub(crate) fn finish(self) -> Result<LockedBytes, SecretError> {
        match self.bytes {
            None => Ok(LockedBytes::new(0)?),
            Some(bytes) if self.used == bytes.len() => Ok(bytes),
            Some(bytes) => Ok(LockedBytes::copy_from(&bytes[..self.used])?),
        }
    }
}
