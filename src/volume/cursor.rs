//! A volume as a stream with a position, which implements `Read`, `Write` and `Seek` of `std::io`.

use std::borrow::Borrow;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::Volume;

/// A position in a volume. `V` is the volume itself, a reference to it, or an `Arc` of it. Several
/// cursors of one volume can be used at the same time.
///
/// A read at the end returns no bytes. A write there fails with [`io::ErrorKind::StorageFull`]. A
/// cursor buffers nothing, so `Write::flush` flushes the volume: it makes everything durable that
/// was written.
#[derive(Clone, Debug)]
pub struct Cursor<V> {
    volume: V,
    position: u64,
}

impl<V: Borrow<Volume>> Cursor<V> {
    /// A cursor at the start of the volume.
    pub fn new(volume: V) -> Self {
        Self {
            volume,
            position: 0,
        }
    }

    /// The position, in bytes from the start. It may be past the end.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The volume, without the position.
    pub fn into_inner(self) -> V {
        self.volume
    }

    /// The number of bytes, at most `len`, between the position and the end.
    fn fitting(&self, len: usize) -> usize {
        let left = self.volume.borrow().size().saturating_sub(self.position);
        usize::try_from(left).map_or(len, |left| left.min(len))
    }
}

impl<V: Borrow<Volume>> Read for Cursor<V> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.fitting(into.len());
        self.volume
            .borrow()
            .read_at(self.position, &mut into[..len])
            .or_else(unless_nothing(len))?;
        self.position += len as u64;
        Ok(len)
    }
}

impl<V: Borrow<Volume>> Write for Cursor<V> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let len = self.fitting(from.len());
        if len == 0 && !from.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.volume
            .borrow()
            .write_at(self.position, &from[..len])
            .or_else(unless_nothing(len))?;
        self.position += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(self.volume.borrow().flush()?)
    }
}

/// Ignores an error if `len` is zero: reading or writing no bytes succeeds even past the end.
fn unless_nothing<E>(len: usize) -> impl FnOnce(E) -> Result<(), E> {
    move |error| if len == 0 { Ok(()) } else { Err(error) }
}

impl<V: Borrow<Volume>> Seek for Cursor<V> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(distance) => self.volume.borrow().size().checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "seek to before the beginning");
        self.position = position.ok_or_else(before)?;
        Ok(self.position)
    }
}
