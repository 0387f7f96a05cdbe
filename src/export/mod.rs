//! A volume as clients see it: a name, a description, and the rules for access.
//!
//! [`Export`] is the only way from a protocol to a volume. The rules that every protocol has to
//! keep are in it, so that clients of different protocols can share one export: read-only access,
//! what a discard does, the bounds of the volume, and what a failed flush means. A server of a
//! protocol translates requests and errors, and schedules threads: [`nbd`], [`vhost_user`] and
//! [`fuse`] are three. A program can write another against the same methods.

#[cfg(feature = "nbd")]
mod budget;
#[cfg(any(feature = "nbd", feature = "vhost-user"))]
mod busy_poll;
mod failure_log;
#[cfg(feature = "fuse")]
pub mod fuse;
#[cfg(feature = "nbd")]
pub mod nbd;
mod pace;
#[cfg(any(feature = "fuse", feature = "nbd", feature = "vhost-user"))]
mod pool;
#[cfg(any(feature = "nbd", feature = "vhost-user"))]
mod refusals;
#[cfg(feature = "vhost-user")]
pub mod vhost_user;
#[cfg(any(feature = "nbd", feature = "vhost-user"))]
mod wake;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::{IoError, Operation};
use crate::sectors::{Plain, Sectors};
use crate::volume::{Allocation, Volume, Windows};
use failure_log::FailureLog;
use pace::Pace;

/// What a client's discard (TRIM, UNMAP) does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discard {
    /// The discard is refused. A server does not offer discards.
    #[default]
    Deny,
    /// The bytes are overwritten with encrypted zeroes. The storage cannot tell which sectors are
    /// free.
    Zeroes,
    /// The discard is passed on. The storage frees the sectors, so it knows which are free.
    Pass,
}

/// A volume with a name and the rules for access.
///
/// Offsets and lengths are bytes of plaintext and need no alignment. All methods take `&self`; any
/// number of threads can call them at the same time.
///
/// A write is on stable storage once a [`flush`](Self::flush) that was called after it has
/// succeeded. After a flush has failed, every later flush of this export fails, whichever client
/// asks for it: bytes written before it may be lost, and most storage reports that only once.
#[derive(Debug)]
pub struct Export {
    name: String,
    description: String,
    volume: Arc<Volume>,
    read_only: bool,
    discard: Discard,
    /// Whether a flush has failed. Held during each flush, so that none succeeds while another one
    /// fails.
    flush_failed: Mutex<bool>,
    /// How long reads and writes wait for the storage.
    pace: Pace,
    /// How long flushes wait for the storage.
    flush_pace: Pace,
    failure_log: FailureLog,
}

impl Export {
    /// Exports `volume` as `name`, without a description, with [`Discard::Deny`]. It is read-only
    /// if the volume is.
    ///
    /// The empty name is the default export in NBD.
    #[must_use]
    pub fn new(name: impl Into<String>, volume: Arc<Volume>) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            read_only: volume.is_read_only(),
            volume,
            discard: Discard::default(),
            flush_failed: Mutex::new(false),
            pace: Pace::default(),
            flush_pace: Pace::default(),
            failure_log: FailureLog::default(),
        }
    }

    /// Sets the description, a text that clients can show to a person.
    #[must_use]
    pub fn with_description(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// Makes the export read-only if `read_only` is true. The export of a read-only volume stays
    /// read-only.
    #[must_use]
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only |= read_only;
        self
    }

    /// Sets what a client's discard does.
    #[must_use]
    pub fn with_discard(mut self, discard: Discard) -> Self {
        self.discard = discard;
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The description; empty if there is none.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.volume.size()
    }

    /// The smallest unit, in bytes, that the storage is read and written in. Requests in whole
    /// units are the fastest, others are allowed. See [`Volume::unit`].
    pub fn unit(&self) -> u32 {
        self.volume.unit()
    }

    /// Whether every change is refused with [`IoError::ReadOnly`].
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What a client's discard does.
    pub fn discard_policy(&self) -> Discard {
        self.discard
    }

    /// Whether reads and writes have recently waited for the storage. If so, a server should run
    /// them on several threads. If not, the storage answers from memory, and handing a request to
    /// another thread costs more than it saves.
    pub fn waits(&self) -> bool {
        self.pace.waits()
    }

    /// Whether flushes have recently waited for the storage.
    pub fn flush_waits(&self) -> bool {
        self.flush_pace.waits()
    }

    /// Checks a request against the rules of this export, without doing it: a server can refuse a
    /// write before it receives the payload. The methods below make the same checks.
    ///
    /// # Errors
    /// [`IoError::ReadOnly`] for a change to a read-only export, [`IoError::Unsupported`] for a
    /// discard under [`Discard::Deny`], [`IoError::OutOfRange`] where the range does not lie inside
    /// the volume.
    pub fn check(&self, operation: Operation, offset: u64, len: u64) -> Result<(), IoError> {
        match operation {
            Operation::Read | Operation::Flush => {}
            _ if self.read_only => return Err(IoError::ReadOnly(operation)),
            Operation::Discard if self.discard == Discard::Deny => {
                return Err(IoError::Unsupported(operation));
            }
            _ => {}
        }
        self.volume.check(operation, offset, len)
    }

    /// Reads `len` bytes from `offset` on. They stay in the buffer in which they were decrypted.
    ///
    /// The buffer is allocated as a whole, so the caller has to bound `len`.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`], and errors of the storage.
    pub fn read(&self, offset: u64, len: usize) -> Result<Bytes, IoError> {
        self.check(Operation::Read, offset, len as u64)?;
        let whole = self.volume.units_around(offset..offset + len as u64);
        let read = self.pace.of(len, || {
            if whole.end > self.volume.size() {
                // The last block of the storage extends beyond the end of the volume.
                let mut sectors = Sectors::<Plain>::with_len(len);
                self.volume.read_at(offset, sectors.as_mut_slice())?;
                return Ok(Bytes::from(sectors));
            }
            let start = usize::try_from(offset - whole.start).unwrap_or(usize::MAX);
            let units = usize::try_from(whole.end - whole.start).unwrap_or(usize::MAX);
            let sectors = self.volume.read_sectors(whole.start, units)?;
            Ok(Bytes {
                sectors,
                range: start..start + len,
            })
        });
        self.logged(read)
    }

    /// Writes all of `bytes` at `offset`. Whole units are encrypted in the buffer that was given;
    /// others are copied.
    ///
    /// # Errors
    /// [`IoError::ReadOnly`], [`IoError::OutOfRange`], and errors of the storage, after which a
    /// part may be written.
    pub fn write(&self, offset: u64, bytes: Sectors<Plain>) -> Result<(), IoError> {
        self.check(Operation::Write, offset, bytes.len() as u64)?;
        let range = offset..offset + bytes.len() as u64;
        let written = self.pace.of(bytes.len(), || {
            if self.volume.units_around(range.clone()) == range {
                self.volume.write_sectors(offset, bytes)
            } else {
                self.volume.write_at(offset, bytes.as_slice())
            }
        });
        self.logged(written)
    }

    /// Fills the windows, the memory of a guest, with the bytes from `offset` on; see
    /// [`Volume::read_into`].
    ///
    /// # Errors
    /// As for [`read`](Self::read). The content of the windows is then unspecified.
    pub fn read_into(&self, offset: u64, into: Windows<'_>) -> Result<(), IoError> {
        self.check(Operation::Read, offset, into.len() as u64)?;
        let read = || self.volume.read_into(offset, into);
        self.logged(self.pace.of(into.len(), read))
    }

    /// Writes what is in the windows, the memory of a guest, at `offset`; see
    /// [`Volume::write_from`].
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn write_from(&self, offset: u64, from: Windows<'_>) -> Result<(), IoError> {
        self.check(Operation::Write, offset, from.len() as u64)?;
        let write = || self.volume.write_from(offset, from);
        self.logged(self.pace.of(from.len(), write))
    }

    /// Makes the range read as zeroes; see [`Volume::write_zeroes`].
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.check(Operation::WriteZeroes, range.start, length(&range))?;
        self.logged(self.volume.write_zeroes(range))
    }

    /// Discards the range, by the rule of this export ([`Discard`]).
    ///
    /// # Errors
    /// [`IoError::Unsupported`] under [`Discard::Deny`] or where the storage cannot discard,
    /// [`IoError::ReadOnly`], [`IoError::OutOfRange`], and errors of the storage.
    pub fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.check(Operation::Discard, range.start, length(&range))?;
        self.logged(match self.discard {
            Discard::Deny => Err(IoError::Unsupported(Operation::Discard)),
            Discard::Zeroes => self.volume.write_zeroes(range),
            Discard::Pass => self.volume.discard(range),
        })
    }

    /// Makes the range read as zeroes, as a hole that is punched into a file. Under
    /// [`Discard::Pass`] the storage frees what reads as zeroes then: whole clusters of an image.
    /// Everything else is overwritten with encrypted zeroes.
    ///
    /// # Errors
    /// As for [`discard`](Self::discard).
    pub fn punch(&self, range: Range<u64>) -> Result<(), IoError> {
        self.check(Operation::Discard, range.start, length(&range))?;
        let frees = self.discard == Discard::Pass && self.volume.discards_to_zeroes();
        self.logged(
            match frees {
                true => self.volume.discard(range.clone()),
                false => Ok(()),
            }
            .and_then(|()| self.volume.write_zeroes(range)),
        )
    }

    /// Tells the storage that the range will be read soon; see [`Volume::prefetch`].
    ///
    /// # Errors
    /// [`IoError::OutOfRange`], and errors of the storage.
    pub fn prefetch(&self, range: Range<u64>) -> Result<(), IoError> {
        self.logged(self.volume.prefetch(range))
    }

    /// The allocation at the start of a range, and the number of bytes that have it; see
    /// [`Volume::allocation`].
    ///
    /// # Errors
    /// [`IoError::OutOfRange`], and errors of the storage.
    pub fn allocation(&self, range: Range<u64>) -> Result<(u64, Allocation), IoError> {
        self.volume.allocation(range)
    }

    /// Returns once everything written before the call, by any client, is on stable storage. On a
    /// read-only export there is nothing to do.
    ///
    /// # Errors
    /// Errors of the storage. After the first one every later call fails.
    pub fn flush(&self) -> Result<(), IoError> {
        if self.read_only {
            return Ok(());
        }
        let mut failed = self
            .flush_failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *failed {
            return Err(IoError::Failed {
                operation: Operation::Flush,
                offset: 0,
                source: std::io::Error::other("an earlier flush has failed"),
            });
        }
        let outcome = self.flush_pace.of(0, || self.volume.flush());
        *failed = outcome.is_err();
        self.logged(outcome)
    }

    fn logged<T>(&self, outcome: Result<T, IoError>) -> Result<T, IoError> {
        self.failure_log.record(&self.name, &outcome);
        outcome
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// Bytes read from an export. They are wiped when this is dropped.
///
/// They are in a buffer of whole units, whose other bytes are not part of the answer.
pub struct Bytes {
    sectors: Sectors<Plain>,
    range: Range<usize>,
}

impl Bytes {
    /// The plaintext.
    pub fn as_slice(&self) -> &[u8] {
        &self.sectors.as_slice()[self.range.clone()]
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.range.len())
    }
}

impl From<Sectors<Plain>> for Bytes {
    fn from(sectors: Sectors<Plain>) -> Self {
        Self {
            range: 0..sectors.len(),
            sectors,
        }
    }
}
