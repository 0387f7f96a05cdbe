//! A storage in memory, for tests and for volumes that are never on a disk.
//!
//! It holds ciphertext, like any other backend, so its memory is neither locked nor wiped.

use std::ops::Range;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Backend, Geometry, IoError, Operation};
use crate::sectors::{Cipher, Sectors};

/// A storage in memory. A discarded range reads as zeroes.
#[derive(Debug)]
pub struct MemoryBackend {
    bytes: RwLock<Vec<u8>>,
    block_size: u32,
    read_only: bool,
}

impl MemoryBackend {
    /// A storage of `size` zero bytes that accepts any alignment.
    pub fn new(size: usize) -> Self {
        Self::from_bytes(vec![0; size])
    }

    /// A storage with these bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self {
            bytes: RwLock::new(bytes),
            block_size: 1,
            read_only: false,
        }
    }

    /// Sets the block size, a power of two. The storage then refuses requests that are not whole
    /// blocks.
    pub fn with_block_size(mut self, block_size: u32) -> Self {
        debug_assert!(block_size.is_power_of_two());
        self.block_size = block_size;
        self
    }

    /// Makes the storage read-only.
    pub fn into_read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// A copy of the content.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.read().clone()
    }

    // A panic during a copy leaves a partial write, which is no reason to refuse later requests.
    fn read(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<u8>> {
        self.bytes.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn shape(&self, bytes: &[u8]) -> Geometry {
        Geometry {
            size: bytes.len() as u64,
            block_size: self.block_size,
            read_only: self.read_only,
        }
    }

    fn zero(&self, operation: Operation, range: Range<u64>) -> Result<(), IoError> {
        let mut bytes = self.write();
        let len = range.end.saturating_sub(range.start);
        self.shape(&bytes)
            .check_change(operation, range.start, len)?;
        bytes[place(range.start, len)].fill(0);
        Ok(())
    }
}

/// The checked range as indices. The memory is smaller than the address space, so both fit.
fn place(offset: u64, len: u64) -> Range<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    start..start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX))
}

impl Backend for MemoryBackend {
    fn geometry(&self) -> Geometry {
        self.shape(&self.read())
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        let bytes = self.read();
        let len = into.len() as u64;
        self.shape(&bytes).check(Operation::Read, offset, len)?;
        into.as_mut_slice()
            .copy_from_slice(&bytes[place(offset, len)]);
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        let mut bytes = self.write();
        let len = from.len() as u64;
        self.shape(&bytes)
            .check_change(Operation::Write, offset, len)?;
        bytes[place(offset, len)].copy_from_slice(from.as_slice());
        Ok(())
    }

    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.zero(Operation::Discard, range)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.zero(Operation::WriteZeroes, range)
    }

    fn reserve(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        self.shape(&self.read())
            .check_change(Operation::Reserve, range.start, len)
    }

    fn resize(&self, size: u64) -> Result<(), IoError> {
        let operation = Operation::Resize;
        if self.read_only {
            return Err(IoError::ReadOnly(operation));
        }
        let no_space = || IoError::NoSpace {
            operation,
            offset: size,
        };
        let new = usize::try_from(size).map_err(|_| no_space())?;
        let mut bytes = self.write();
        let more = new.saturating_sub(bytes.len());
        bytes.try_reserve_exact(more).map_err(|_| no_space())?;
        bytes.resize(new, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(storage: &impl Backend, offset: u64, len: usize) -> Result<Vec<u8>, IoError> {
        let mut sectors = Sectors::<Cipher>::with_len(len);
        storage.read_at(offset, &mut sectors)?;
        Ok(sectors.as_slice().to_vec())
    }

    #[test]
    fn what_is_written_is_read() {
        let storage = MemoryBackend::new(8192);
        storage
            .write_at(100, &Sectors::metadata(&[3; 700]))
            .unwrap();
        assert_eq!(read(&storage, 100, 700).unwrap(), [3; 700]);
        assert_eq!(read(&storage, 0, 100).unwrap(), [0; 100]);
        storage.discard(200..300).unwrap();
        assert_eq!(read(&storage, 200, 100).unwrap(), [0; 100]);
        assert_eq!(read(&storage, 300, 1).unwrap(), [3]);
    }

    #[test]
    fn ranges_outside_are_refused() {
        let storage = MemoryBackend::new(1000);
        assert!(matches!(
            read(&storage, 999, 2),
            Err(IoError::OutOfRange { size: 1000, .. })
        ));
        assert!(matches!(
            read(&storage, u64::MAX, 2),
            Err(IoError::OutOfRange { .. })
        ));
        assert!(matches!(
            storage.write_at(1000, &Sectors::metadata(&[1])),
            Err(IoError::OutOfRange { .. })
        ));
        assert!(matches!(
            storage.discard(0..1001),
            Err(IoError::OutOfRange { .. })
        ));
        assert_eq!(storage.to_bytes(), [0; 1000]);
    }

    #[test]
    fn a_block_size_is_demanded() {
        let storage = MemoryBackend::new(8192).with_block_size(4096);
        assert!(matches!(
            read(&storage, 512, 4096),
            Err(IoError::Unaligned { unit: 4096, .. })
        ));
        assert!(matches!(
            read(&storage, 0, 512),
            Err(IoError::Unaligned { .. })
        ));
        assert!(read(&storage, 4096, 4096).is_ok());
    }

    #[test]
    fn read_only_refuses_every_change() {
        let storage = MemoryBackend::new(512).into_read_only();
        assert!(matches!(
            storage.write_at(0, &Sectors::metadata(&[1])),
            Err(IoError::ReadOnly(_))
        ));
        assert!(matches!(storage.discard(0..512), Err(IoError::ReadOnly(_))));
        assert!(matches!(
            storage.write_zeroes(0..512),
            Err(IoError::ReadOnly(_))
        ));
        assert!(matches!(storage.resize(0), Err(IoError::ReadOnly(_))));
    }

    #[test]
    fn resizing_keeps_what_stays_and_adds_zeroes() {
        let storage = MemoryBackend::from_bytes(vec![9; 100]);
        storage.resize(50).unwrap();
        storage.resize(200).unwrap();
        assert_eq!(storage.to_bytes(), [[9; 50].as_slice(), &[0; 150]].concat());
        assert!(matches!(
            storage.resize(u64::MAX),
            Err(IoError::NoSpace { .. })
        ));
    }
}
