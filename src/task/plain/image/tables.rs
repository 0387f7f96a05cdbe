//! The bytes of an image, for its reader: tables in pages, and data of which the image may end
//! before the end.

use std::sync::Arc;

use crate::backend::{Backend, IoError};
use crate::sectors::{Cipher, Sectors};

/// The bytes of a table that are read at once.
const PAGE: u64 = 64 << 10;

/// An image whose tables are read in order.
pub(super) struct Tables {
    storage: Arc<dyn Backend>,
    /// The last pages that were read, by their numbers: a format has tables of two levels.
    pages: [Option<(u64, Vec<u8>)>; 2],
    next: usize,
}

impl Tables {
    pub(super) fn new(storage: Arc<dyn Backend>) -> Self {
        Self {
            storage,
            pages: [None, None],
            next: 0,
        }
    }

    /// The size of the image in bytes.
    pub(super) fn size(&self) -> u64 {
        self.storage.geometry().size
    }

    /// The `N` bytes at an offset that is a multiple of `N`.
    pub(super) fn word<const N: usize>(&mut self, at: u64) -> Result<[u8; N], IoError> {
        let number = at / PAGE;
        let known =
            |page: &Option<(u64, Vec<u8>)>| page.as_ref().is_some_and(|one| one.0 == number);
        let index = match self.pages.iter().position(known) {
            Some(index) => index,
            None => {
                let mut bytes = vec![0; length(PAGE)];
                self.read(number * PAGE, &mut bytes)?;
                let index = self.next;
                self.pages[index] = Some((number, bytes));
                self.next = (index + 1) % self.pages.len();
                index
            }
        };
        let within = length(at % PAGE);
        let page = self.pages[index].as_ref();
        let word = page.and_then(|(_, bytes)| bytes.get(within..)?.first_chunk());
        // A word never crosses the end of a page.
        Ok(word.copied().unwrap_or([0; N]))
    }

    /// Fills `into` with the bytes from `at` on. What is after the end of the image is zeroes, as
    /// programs read it.
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> Result<(), IoError> {
        let geometry = self.storage.geometry();
        let there = length(geometry.size.saturating_sub(at)).min(into.len());
        let (there, beyond) = into.split_at_mut(there);
        beyond.fill(0);
        if there.is_empty() {
            return Ok(());
        }
        let unit = u64::from(geometry.block_size.max(1));
        let (first, end) = (at / unit * unit, at + there.len() as u64);
        let last = end.next_multiple_of(unit);
        let mut blocks = Sectors::<Cipher>::unencrypted(length(last - first));
        self.storage.read_at(first, &mut blocks)?;
        let skip = length(at - first);
        there.copy_from_slice(&blocks.as_slice()[skip..skip + there.len()]);
        Ok(())
    }
}

/// Converts a length of data in memory, which therefore fits in a `usize`.
pub(super) fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
