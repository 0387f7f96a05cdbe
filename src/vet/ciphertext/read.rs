//! Reads a range of a storage of any block size.

use std::ops::Range;

use crate::backend::{Backend, IoError};
use crate::sectors::{Cipher, Sectors};

/// Reads the whole blocks that contain `range`, and calls `look` with the bytes of `range`.
pub(super) fn read<T>(
    storage: &dyn Backend,
    range: Range<u64>,
    look: impl FnOnce(&[u8]) -> T,
) -> Result<T, IoError> {
    let unit = u64::from(storage.geometry().block_size.max(1));
    let begin = range.start - range.start % unit;
    let end = range
        .end
        .next_multiple_of(unit)
        .min(storage.geometry().size);
    let mut sectors = Sectors::<Cipher>::with_len(usize::try_from(end - begin).unwrap_or(0));
    storage.read_at(begin, &mut sectors)?;
    let skip = usize::try_from(range.start - begin).unwrap_or(0);
    let len = usize::try_from(range.end - range.start).unwrap_or(0);
    let bytes = sectors.as_slice();
    Ok(look(bytes.get(skip..skip + len).unwrap_or_default()))
}
