//! Which parts of an image are stored.

use std::ops::Range;

use crate::backend::IoError;
use crate::layout::Qcow2;
use crate::layout::qcow2::Stored;

/// What a range of a volume is in its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allocation {
    /// Ciphertext is stored for it.
    Data,
    /// Nothing is stored, and it reads as zeroes.
    Hole,
}

/// What is stored at the beginning of a range.
pub(super) fn allocation(image: &Qcow2, range: Range<u64>) -> Result<(u64, Allocation), IoError> {
    if range.is_empty() {
        return Ok((0, Allocation::Data));
    }
    let run = image.run(range)?;
    Ok((
        run.len,
        match run.stored {
            Stored::Nowhere => Allocation::Hole,
            Stored::Here(_) | Stored::Kept(_) | Stored::Compressed(..) => Allocation::Data,
        },
    ))
}
