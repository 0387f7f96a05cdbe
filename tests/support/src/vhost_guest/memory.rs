//! The memory of the guest: where its rings are, and the descriptors in them.

use std::io::{Error, Result};
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

/// The size of the guest's memory, in bytes.
pub const MEMORY: u64 = 16 << 20;
/// Where data can be, above the rings.
pub const DATA: u64 = 8 << 20;
/// The number of descriptors of a ring.
pub const RING: u16 = 128;
/// The memory for one ring and its headers.
const OF_RING: u64 = 64 << 10;

/// A descriptor has another one after it.
pub const NEXT: u16 = 1;
/// The device writes what a descriptor refers to.
pub const WRITE: u16 = 2;
/// A descriptor refers to a table of descriptors.
pub const INDIRECT: u16 = 4;

/// The types of requests.
pub mod kind {
    #![allow(missing_docs)]
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const NAME: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
}

/// One descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    /// The address in the guest's memory.
    pub address: u64,
    /// The length in bytes.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// The number of the next one.
    pub next: u16,
}

impl Descriptor {
    fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// The header of a request.
pub fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

/// A range of a request to discard or zero.
pub fn range(sector: u64, sectors: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&sector.to_le_bytes());
    bytes[8..12].copy_from_slice(&sectors.to_le_bytes());
    bytes[12..].copy_from_slice(&flags.to_le_bytes());
    bytes
}

/// The memory of a guest. It outlives connections, as that of a machine does.
pub struct Memory {
    pub(super) map: GuestMemoryMmap<()>,
    file: std::fs::File,
}

impl Memory {
    /// New memory, which is zero.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new() -> Result<Self> {
        let file = std::fs::File::from(memfd_create("guest", MemfdFlags::CLOEXEC)?);
        file.set_len(MEMORY)?;
        let len = usize::try_from(MEMORY).map_err(Error::other)?;
        let offset = FileOffset::new(file.try_clone()?, 0);
        let map = GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), len, Some(offset))]);
        Ok(Self {
            map: map.map_err(Error::other)?,
            file,
        })
    }

    /// The file behind the memory.
    pub fn file(&self) -> &std::fs::File {
        &self.file
    }

    /// Writes bytes.
    ///
    /// # Panics
    /// If they are not in the memory.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        (self.map.write_slice(bytes, GuestAddress(address))).expect("it is in the memory");
    }

    /// Reads bytes.
    ///
    /// # Panics
    /// If they are not in the memory.
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        (self.map.read_slice(&mut bytes, GuestAddress(address))).expect("it is in the memory");
        bytes
    }

    pub(super) fn describe(&self, ring: usize, first: u16, descriptors: &[Descriptor]) {
        for (at, descriptor) in (u64::from(first)..).zip(descriptors) {
            self.write(table(ring) + 16 * at, &descriptor.bytes());
        }
    }

    pub(super) fn chain(&self, ring: usize, first: u16, parts: &[(u64, u32, u16)]) {
        let chain: Vec<_> = (first + 1..)
            .zip(parts)
            .map(|(next, &(address, len, flags))| Descriptor {
                address,
                len,
                flags,
                next,
            })
            .collect();
        self.describe(ring, first, &chain);
    }

    pub(super) fn u16(&self, address: u64) -> u16 {
        let loaded = self
            .map
            .load::<u16>(GuestAddress(address), Ordering::Acquire);
        u16::from_le(loaded.expect("it is in the memory"))
    }

    pub(super) fn set_u16(&self, address: u64, value: u16) {
        let stored = self
            .map
            .store(value.to_le(), GuestAddress(address), Ordering::Release);
        stored.expect("it is in the memory");
    }
}

/// Where the parts of a ring are.
pub(super) fn table(ring: usize) -> u64 {
    ring as u64 * OF_RING
}
pub(super) fn available(ring: usize) -> u64 {
    table(ring) + 0x1000
}
pub(super) fn used(ring: usize) -> u64 {
    table(ring) + 0x2000
}
/// Where the headers and the status bytes of requests can be.
pub fn headers(ring: usize) -> u64 {
    table(ring) + 0x4000
}
