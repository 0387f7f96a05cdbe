//! Reads and writes metadata: the only way to a storage that does not pass the cipher.
//!
//! Headers, encrypted key material and the tables of an image are already encrypted or public, so
//! they become [`Sectors<Cipher>`] as they are. Only this module may call
//! `Sectors::<Cipher>::metadata`. It never writes plaintext of a volume. It also reads what another
//! program stored unencrypted: the compressed clusters of an image, and by [`read_unencrypted`] the
//! data that is being encrypted in place.

use std::ops::Range;

use crate::backend::{Backend, IoError};
use crate::sectors::{Cipher, Plain, Sectors};

/// Reads `length` bytes at `offset`, with any alignment.
pub(crate) fn read(storage: &dyn Backend, offset: u64, length: usize) -> Result<Vec<u8>, IoError> {
    let whole = blocks_around(storage, offset, length);
    let mut buffer = Sectors::<Cipher>::zeroed(length_of(&whole));
    storage.read_at(whole.start, &mut buffer)?;
    let skip = length_of(&(whole.start..offset));
    Ok(buffer.as_slice()[skip..skip + length].to_vec())
}

/// Writes `bytes` at `offset`, with any alignment. Of a block that is only partly covered, the rest
/// is read and written again.
pub(crate) fn write(storage: &dyn Backend, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
    let whole = blocks_around(storage, offset, bytes.len());
    if whole == (offset..offset + bytes.len() as u64) {
        return storage.write_at(offset, &Sectors::<Cipher>::metadata(bytes));
    }
    let mut content = read(storage, whole.start, length_of(&whole))?;
    let skip = length_of(&(whole.start..offset));
    content[skip..skip + bytes.len()].copy_from_slice(bytes);
    storage.write_at(whole.start, &Sectors::<Cipher>::metadata(&content))
}

/// Reads `length` bytes at `offset` that are plaintext, since they are not encrypted in place yet.
/// Both are whole blocks.
pub(crate) fn read_unencrypted(
    storage: &dyn Backend,
    offset: u64,
    length: usize,
) -> Result<Sectors<Plain>, IoError> {
    let mut sectors = Sectors::<Cipher>::unencrypted(length);
    storage.read_at(offset, &mut sectors)?;
    Ok(sectors.stored_plaintext())
}

fn blocks_around(storage: &dyn Backend, offset: u64, length: usize) -> Range<u64> {
    let block = u64::from(storage.geometry().block_size.max(1));
    offset / block * block..(offset + length as u64).next_multiple_of(block)
}

fn length_of(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}
