//! Finds out which parts of a volume are stored, and which are holes.

use std::ops::Range;

use crate::backend::{Allocation, IoError};
use crate::layout::Qcow2;
use crate::layout::qcow2::Stored;

/// The allocation at the start of a range, and the number of bytes that have it.
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
