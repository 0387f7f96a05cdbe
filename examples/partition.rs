//! A storage of your own: a `Backend` that is a part of another one. It opens a LUKS volume in a
//! partition of a disk image: `cargo run --example partition -- DISK START SIZE`, in bytes.
//!
//! Its test runs `backend::conformance` over it, which examines the contract of `Backend`.

#![allow(clippy::print_stdout)] // a program, not the library

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use luksmith::backend::file::{FileBackend, OpenOptions};
use luksmith::backend::{Backend, Geometry, IoError, Operation};
use luksmith::container::{self, Container, Undo};
use luksmith::sectors::{Cipher, Sectors};

/// `size` bytes of a disk from `start` on, both in whole blocks of the disk.
pub(crate) struct Partition<B> {
    pub(crate) disk: B,
    pub(crate) start: u64,
    pub(crate) size: u64,
}

impl<B: Backend> Partition<B> {
    /// Where a range is on the disk, if it may be changed.
    fn changed(&self, operation: Operation, range: Range<u64>) -> Result<Range<u64>, IoError> {
        let len = range.end.saturating_sub(range.start);
        self.geometry().check_change(operation, range.start, len)?;
        Ok(self.start + range.start..self.start + range.start + len)
    }
}

impl<B: Backend> Backend for Partition<B> {
    fn geometry(&self) -> Geometry {
        let disk = self.disk.geometry();
        Geometry::new(self.size)
            .with_block_size(disk.block_size)
            .with_read_only(disk.read_only)
    }
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        // The checks of the contract. Afterwards the addition cannot overflow.
        let len = into.len() as u64;
        self.geometry().check(Operation::Read, offset, len)?;
        self.disk.read_at(self.start + offset, into)
    }
    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        let end = offset.saturating_add(from.len() as u64);
        let range = self.changed(Operation::Write, offset..end)?;
        self.disk.write_at(range.start, from)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.disk.flush()
    }
    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.disk.discard(self.changed(Operation::Discard, range)?)
    }
    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.disk
            .write_zeroes(self.changed(Operation::WriteZeroes, range)?)
    }
    fn reserve(&self, range: Range<u64>) -> Result<(), IoError> {
        self.disk.reserve(self.changed(Operation::Reserve, range)?)
    }
    fn resize(&self, _size: u64) -> Result<(), IoError> {
        Err(IoError::Unsupported(Operation::Resize))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let [disk, start, size] = [1, 2, 3].map(|n| std::env::args().nth(n).unwrap_or_default());
    let disk = FileBackend::open(disk, OpenOptions::new())?;
    let undo = Undo::beside(&disk);
    let (start, size) = (start.parse()?, size.parse()?);
    let partition = Arc::new(Partition { disk, start, size });
    let container = Container::open(partition, container::OpenOptions::new(undo))?;
    println!("{} volume {}", container.version(), container.uuid());
    Ok(())
}
