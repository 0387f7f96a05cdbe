//! An export with plain data, at the plain end of a copy.

use std::ops::Range;
use std::sync::Arc;

use luksmith_formats::nbd::uri::Uri;

use super::{ConnectOptions, NbdBackend, NbdError, io_error};
use crate::Interrupt;
use crate::backend::{Backend, Extents, IoError, Operation};
use crate::sectors::{Cipher, Plain, Sectors};

/// An export whose bytes are plain data: the source or the destination of a copy.
///
/// It is not a [`Backend`], so that no volume is ever stored there, and so that the storage of a
/// volume never gets plaintext. The server sees the plaintext. Whether the connection may be one
/// that others can read is the decision of the caller.
pub struct PlainExport {
    export: NbdBackend,
}

impl PlainExport {
    /// Connects to the server and opens the export. The interrupt ends the wait for the server,
    /// also later.
    ///
    /// # Errors
    /// [`NbdError`], whose source is the [`Problem`](super::Problem).
    pub fn connect(
        uri: &Uri,
        options: ConnectOptions,
        interrupt: &Interrupt,
    ) -> Result<Self, NbdError> {
        let options = ConnectOptions {
            plain: true,
            ..options
        };
        let export = NbdBackend::connect_interruptible(uri, options, interrupt.clone())?;
        Ok(Self { export })
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.export.geometry().size
    }

    /// As [`Backend::extents`].
    ///
    /// # Errors
    /// As [`Backend::extents`].
    pub fn extents(&self, range: Range<u64>) -> Result<Extents, IoError> {
        self.export.extents(range)
    }

    /// Fills `into` with the bytes from `offset` on.
    ///
    /// # Errors
    /// As [`Backend::read_at`], but any alignment is allowed.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        let unit = u64::from(self.export.geometry().block_size.max(1));
        let first = offset / unit * unit;
        let skip = index(offset - first);
        let len = (skip + into.len()).next_multiple_of(index(unit));
        let mut blocks = Sectors::<Cipher>::unencrypted(len);
        self.export.read_at(first, &mut blocks)?;
        into.copy_from_slice(&blocks.as_slice()[skip..skip + into.len()]);
        Ok(())
    }

    /// Writes bytes at an offset that is a multiple of the server's block size. If they end within
    /// a block, the rest of that block keeps its content.
    ///
    /// # Errors
    /// As [`Backend::write_at`].
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        let geometry = self.export.geometry();
        let unit = geometry.block_size.max(1) as usize;
        let (whole, rest) = bytes.split_at(bytes.len() / unit * unit);
        self.write_blocks(offset, whole)?;
        if rest.is_empty() {
            return Ok(());
        }
        let at = offset + whole.len() as u64;
        let mut block = Sectors::<Plain>::zeroed(unit);
        self.read_at(at, block.as_mut_slice())?;
        block.as_mut_slice()[..rest.len()].copy_from_slice(rest);
        self.write_blocks(at, block.as_slice())
    }

    fn write_blocks(&self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        let operation = Operation::Write;
        let geometry = self.export.geometry();
        geometry.check_change(operation, offset, bytes.len() as u64)?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.export
            .write(offset, bytes)
            .map_err(|error: Arc<NbdError>| io_error(error, operation, offset))
    }

    /// Makes everything durable that was written.
    ///
    /// # Errors
    /// As [`Backend::flush`].
    pub fn flush(&self) -> Result<(), IoError> {
        self.export.flush()
    }
}

impl std::fmt::Debug for PlainExport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PlainExport").field(&self.export).finish()
    }
}

/// Converts a length that is within a buffer in memory.
fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
