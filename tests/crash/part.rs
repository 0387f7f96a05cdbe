//! A part of a disk that is a storage of its own.

use std::ops::Range;
use std::sync::Arc;

use luksmith::backend::{Backend, Geometry, IoError};
use luksmith::sectors::{Cipher, Sectors};

/// A part of a disk that is a storage of its own.
pub(crate) struct Part(pub(crate) Arc<dyn Backend>, pub(crate) Range<u64>);

impl Backend for Part {
    fn geometry(&self) -> Geometry {
        let mut geometry = self.0.geometry();
        geometry.size = self.1.end - self.1.start;
        geometry
    }
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        self.0.read_at(self.1.start + offset, into)
    }
    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        self.0.write_at(self.1.start + offset, from)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.0.flush()
    }
    fn discard(&self, _: Range<u64>) -> Result<(), IoError> {
        unreachable!("nothing is discarded")
    }
    fn write_zeroes(&self, _: Range<u64>) -> Result<(), IoError> {
        unreachable!("nothing is zeroed")
    }
    fn resize(&self, _: u64) -> Result<(), IoError> {
        unreachable!("nothing is resized")
    }
}
