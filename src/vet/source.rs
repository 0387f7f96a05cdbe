//! The bytes of an image, read within a budget. It bounds how long an inspection takes.

use crate::backend::{Backend, IoError};
use crate::sectors::{Cipher, Sectors};

/// The budget of an inspection, in bytes that are read. Searches count too.
const BUDGET: u64 = 512 << 20;

/// The most bytes that are read at once.
pub(super) const PIECE: u64 = 256 << 10;

/// Why an inspection ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The budget is used up.
    Budget,
    /// One check has failed so often that further findings would not be kept.
    Enough,
    /// The storage failed.
    Io(IoError),
}

/// An image that is being read.
pub(super) struct Source<'a> {
    storage: &'a dyn Backend,
    size: u64,
    left: u64,
}

impl<'a> Source<'a> {
    pub(super) fn new(storage: &'a dyn Backend) -> Self {
        Self::with_budget(storage, BUDGET)
    }

    /// A source with a budget of `left` bytes.
    pub(super) fn with_budget(storage: &'a dyn Backend, left: u64) -> Self {
        Self {
            storage,
            size: storage.geometry().size,
            left,
        }
    }

    /// The size of the image in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the whole range is in the image.
    pub(super) fn holds(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.size)
    }

    /// Takes the cost of work other than reading from the budget.
    pub(super) fn spend(&mut self, cost: u64) -> Result<(), Stop> {
        self.left = self.left.checked_sub(cost).ok_or(Stop::Budget)?;
        Ok(())
    }

    /// Reads up to `len` bytes from `offset` on; fewer if the image ends before. The caller bounds
    /// `len`.
    pub(super) fn read(&mut self, offset: u64, len: u64) -> Result<Vec<u8>, Stop> {
        let end = offset.saturating_add(len).min(self.size);
        if offset >= end {
            return Ok(Vec::new());
        }
        // The system reads at least a page.
        self.spend((end - offset).max(4096))?;
        let unit = u64::from(self.storage.geometry().block_size).max(1);
        let (first, last) = (offset - offset % unit, end.next_multiple_of(unit));
        let mut sectors = Sectors::<Cipher>::with_len(length(last - first));
        self.storage
            .read_at(first, &mut sectors)
            .map_err(Stop::Io)?;
        let bytes = sectors.as_slice();
        Ok(bytes[length(offset - first)..length(end - first)].to_vec())
    }
}

/// The offset and the length of each piece of a range, cut into pieces of at most [`PIECE`] bytes.
pub(super) fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = offset.saturating_add(len);
    (0..len.div_ceil(PIECE)).map(move |piece| {
        let at = offset.saturating_add(piece.saturating_mul(PIECE));
        (at, end.saturating_sub(at).min(PIECE))
    })
}

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
