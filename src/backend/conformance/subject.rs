//! The storage under test, whose methods take slices of bytes instead of sector buffers.

use std::fmt;

use super::violation::{Clause, Violation};
use crate::backend::{Backend, IoError};
use crate::sectors::{Cipher, Sectors};

/// The first and the last bytes of a storage.
pub(super) struct Snapshot {
    pub(super) start: Vec<u8>,
    end: Vec<u8>,
}

/// A request for a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Read,
    Prefetch,
    Write,
    WriteZeroes,
    Discard,
}

impl Request {
    pub(super) const CHANGES: [Self; 3] = [Self::Write, Self::WriteZeroes, Self::Discard];

    /// Whether it has a buffer, whose length is limited by the memory.
    pub(super) fn has_buffer(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "a read",
            Self::Prefetch => "a prefetch",
            Self::Write => "a write",
            Self::WriteZeroes => "a write of zeroes",
            Self::Discard => "a discard",
        })
    }
}

/// A storage under test.
pub(super) struct Subject<'a> {
    pub(super) storage: &'a dyn Backend,
    /// The block size in bytes.
    pub(super) block: u64,
    /// The unit in which the suite reads and writes, in bytes: whole blocks, but not whole pages if
    /// the block size allows it.
    pub(super) unit: usize,
    /// The size in bytes, in whole blocks.
    pub(super) size: u64,
}

/// The unit for storage that takes any length: odd, so that units share sectors and pages.
const ODD: usize = 619;

/// Units at the start and at the end of the storage that a [`Snapshot`] has.
const SHOWN: usize = 32;

impl<'a> Subject<'a> {
    pub(super) fn new(storage: &'a dyn Backend) -> Self {
        let geometry = storage.geometry();
        let block = u64::from(geometry.block_size.max(1));
        Self {
            storage,
            block,
            unit: match usize::try_from(block).unwrap_or(usize::MAX) {
                1 => ODD,
                block => block,
            },
            size: geometry.size - geometry.size % block,
        }
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.storage.geometry().read_only
    }

    /// The requests that the storage carries out.
    pub(super) fn requests(&self) -> impl Iterator<Item = Request> {
        let changes = if self.is_read_only() {
            &[][..]
        } else {
            &Request::CHANGES
        };
        [Request::Read, Request::Prefetch]
            .into_iter()
            .chain(changes.iter().copied())
    }

    /// Carries out a request; a write writes ones.
    pub(super) fn run(&self, request: Request, offset: u64, len: u64) -> Result<(), IoError> {
        let range = offset..offset.saturating_add(len);
        let buffer = || vec![0xff; usize::try_from(len).unwrap_or(usize::MAX)];
        match request {
            Request::Read => self.storage.read_at(offset, &mut sectors(&buffer())),
            Request::Prefetch => self.storage.prefetch(range),
            Request::Write => self.storage.write_at(offset, &sectors(&buffer())),
            Request::WriteZeroes => self.storage.write_zeroes(range),
            Request::Discard => self.storage.discard(range),
        }
    }

    /// The bytes at the start and at the end of the storage.
    pub(super) fn snapshot(&self, clause: Clause) -> Result<Snapshot, Violation> {
        let len = SHOWN * self.unit;
        Ok(Snapshot {
            start: self.get(clause, 0, len)?,
            end: self.get(clause, self.size - len as u64, len)?,
        })
    }

    /// Fails unless the storage has these bytes, and still has its size.
    pub(super) fn expect_snapshot(
        &self,
        clause: Clause,
        snapshot: &Snapshot,
        after: &str,
    ) -> Result<(), Violation> {
        let size = self.storage.geometry().size;
        if size - size % self.block != self.size {
            let found = format!("the size was {} and is {size} {after}", self.size);
            return Err(Violation::new(clause, found));
        }
        let end = self.size - snapshot.end.len() as u64;
        self.expect(clause, 0, &snapshot.start, after)?;
        self.expect(clause, end, &snapshot.end, after)
    }

    /// Where unit number `number` begins, in bytes.
    pub(super) fn at(&self, number: usize) -> u64 {
        (number * self.unit) as u64
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.storage.write_at(offset, &sectors(bytes))
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, IoError> {
        // Bytes that no pattern and no zeroed range has everywhere.
        let mut into = sectors(&vec![0xa5; len]);
        self.storage.read_at(offset, &mut into)?;
        Ok(into.as_slice().to_vec())
    }

    /// Writes bytes. The write has to succeed.
    pub(super) fn put(&self, clause: Clause, offset: u64, bytes: &[u8]) -> Result<(), Violation> {
        self.write(offset, bytes).map_err(|error| {
            let found = format!("writing {} bytes at byte {offset} failed", bytes.len());
            Violation::new(clause, found).because(error)
        })
    }

    /// Reads bytes. The read has to succeed.
    pub(super) fn get(
        &self,
        clause: Clause,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, Violation> {
        self.read(offset, len).map_err(|error| {
            let found = format!("reading {len} bytes at byte {offset} failed");
            Violation::new(clause, found).because(error)
        })
    }

    /// Fails unless these bytes are at `offset`.
    pub(super) fn expect(
        &self,
        clause: Clause,
        offset: u64,
        expected: &[u8],
        after: &str,
    ) -> Result<(), Violation> {
        let found = self.get(clause, offset, expected.len())?;
        match found.iter().zip(expected).position(|(a, b)| a != b) {
            None if found.len() == expected.len() => Ok(()),
            None => Err(Violation::new(clause, "the buffer has another length")),
            Some(at) => {
                let (at, is) = (offset + at as u64, found[at]);
                let found = format!("byte {at} is {is:#04x} {after}");
                Err(Violation::new(clause, found))
            }
        }
    }
}

/// A buffer with these bytes.
pub(super) fn sectors(bytes: &[u8]) -> Sectors<Cipher> {
    let mut sectors = Sectors::<Cipher>::with_len(bytes.len());
    sectors.as_mut_slice().copy_from_slice(bytes);
    sectors
}

/// Bytes that look random and depend only on `seed`.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(len)
    .collect()
}
