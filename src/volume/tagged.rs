//! Reads whole sectors of a volume whose sectors have tags. No byte of a sector is returned that
//! does not match its tag.

use std::sync::atomic::AtomicU64;

use super::{RangeLocks, Volume};
use crate::backend::IoError;
use crate::layout::Layout;
use crate::layout::integrity::Tagged;
use crate::sectors::{Plain, Sectors};

impl Volume {
    /// A volume whose sectors have tags. It is only read.
    pub(crate) fn of_tagged(tagged: Tagged) -> Self {
        let block_size = tagged.storage.geometry().block_size;
        Self {
            unit: u64::from(tagged.crypt.sector_size().max(block_size)),
            read_only: true,
            size: AtomicU64::new(tagged.places.size()),
            layout: Layout::Tagged(Box::new(tagged)),
            takes_plaintext: false,
            busy: RangeLocks::default(),
        }
    }

    /// Reads whole sectors, locked and checked by the caller. The last unit may extend past the end
    /// of the volume, where there are zeroes.
    pub(super) fn load_tagged(
        &self,
        tagged: &Tagged,
        offset: u64,
        len: usize,
    ) -> Result<Sectors<Plain>, IoError> {
        let end = (offset + len as u64).min(tagged.places.size());
        if tagged.run(offset, end)?.len == len {
            return load_run(tagged, offset, end);
        }
        let mut whole = Sectors::<Plain>::zeroed(len);
        let (mut at, mut rest) = (offset, whole.as_mut_slice());
        while at < end {
            let part = load_run(tagged, at, end)?;
            let (now, later) = rest.split_at_mut(part.len());
            now.copy_from_slice(part.as_slice());
            (rest, at) = (later, at + part.len() as u64);
        }
        Ok(whole)
    }
}

/// Reads the sectors at the start of a range, up to the end of their area.
fn load_run(tagged: &Tagged, start: u64, end: u64) -> Result<Sectors<Plain>, IoError> {
    let run = tagged.run(start, end)?;
    let (sectors, tags) = run.read()?;
    let opened = tagged.crypt.open(run.number, &tags, sectors);
    opened.map_err(|mismatch| IoError::TagMismatch {
        offset: start + mismatch.offset,
        len: tagged.crypt.sector_size(),
    })
}
