//! Reads and writes whole units of a volume that is reencrypted, and the locks that its
//! reencryption takes beside clients.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::ranges::RangeGuard;
use super::{RangeLocks, Volume, load_run, store_run};
use crate::backend::IoError;
use crate::layout::Layout;
use crate::layout::linear::Linear;
use crate::layout::side::OldSide;
use crate::layout::two_sides::{ReadRun, TwoSides};
use crate::sectors::{Plain, Sectors};

/// The largest sector in bytes that a volume can have.
const LARGEST_SECTOR: u64 = 4096;

impl Volume {
    /// A volume of `size` bytes with two encryptions. Discards do nothing on it while there are
    /// two, and its size does not change.
    pub(crate) fn of_two_sides(
        sides: Arc<TwoSides>,
        size: u64,
        read_only: bool,
    ) -> Result<Self, IoError> {
        let geometry = sides.storage().geometry();
        let volume = Self {
            unit: sides.block(),
            read_only: read_only || geometry.read_only || sides.is_only_read(),
            layout: Layout::TwoSides(sides),
            size: AtomicU64::new(0),
            takes_plaintext: false,
            busy: RangeLocks::default(),
        };
        volume.set_size(size)?;
        Ok(volume)
    }

    /// The same volume, so that it can get another encryption while it is used. Its size is a whole
    /// number of sectors of 4096 bytes if possible, which are its units then. `None` if it is not
    /// consecutive sectors.
    pub(crate) fn into_two_sides(self) -> Result<Option<(Self, Arc<TwoSides>)>, IoError> {
        let (size, read_only) = (self.size(), self.read_only);
        let Layout::Linear(Linear { storage, side }) = self.layout else {
            return Ok(None);
        };
        let unit = match size.is_multiple_of(LARGEST_SECTOR) {
            true => self.unit.max(LARGEST_SECTOR),
            false => self.unit,
        };
        let sides = TwoSides::new(
            storage,
            OldSide::Encrypted(Arc::new(side)),
            None,
            unit,
            0,
            Vec::new(),
        );
        let sides = Arc::new(sides);
        let volume = Self::of_two_sides(sides.clone(), size, read_only)?;
        Ok(Some((volume, sides)))
    }

    /// Waits until no request writes to the range. While the lock is held, no other one does, but
    /// others read.
    pub(crate) fn hold_writers(&self, range: Range<u64>) -> RangeGuard<'_> {
        self.busy.share(range)
    }

    /// Waits until no request uses the range. While the lock is held, no other one does.
    pub(crate) fn hold_all(&self, range: Range<u64>) -> RangeGuard<'_> {
        self.busy.exclude(range)
    }

    /// The number of locks that were asked for so far, by requests and by the caller.
    pub(crate) fn locks(&self) -> u64 {
        self.busy.count()
    }

    pub(super) fn load_sides(
        &self,
        sides: &TwoSides,
        offset: u64,
        len: usize,
    ) -> Result<Sectors<Plain>, IoError> {
        let end = offset + len as u64;
        let (run, length) = sides.run_to_read(&(offset..end))?;
        if length == len as u64 {
            return load_read(&run, len);
        }
        let mut whole = Sectors::<Plain>::with_len(len);
        let mut rest = whole.as_mut_slice();
        let (mut at, mut next) = (offset, (run, length));
        loop {
            let (run, length) = next;
            let (now, later) = rest.split_at_mut(as_len(length));
            now.copy_from_slice(load_read(&run, now.len())?.as_slice());
            (rest, at) = (later, at + length);
            if at >= end {
                return Ok(whole);
            }
            next = sides.run_to_read(&(at..end))?;
        }
    }

    pub(super) fn store_sides(
        &self,
        sides: &TwoSides,
        offset: u64,
        sectors: Sectors<Plain>,
    ) -> Result<(), IoError> {
        let end = offset + sectors.len() as u64;
        let (run, length) = sides.run_to_write(&(offset..end))?;
        if length == sectors.len() as u64 {
            let outcome = store_run(run.get(), sectors);
            sides.written(&(offset..end), outcome.is_ok());
            return outcome;
        }
        let (mut at, mut rest) = (offset, sectors.as_slice());
        while at < end {
            let (run, length) = sides.run_to_write(&(at..end))?;
            let (now, later) = rest.split_at(as_len(length));
            let mut part = Sectors::<Plain>::with_len(now.len());
            part.as_mut_slice().copy_from_slice(now);
            let outcome = store_run(run.get(), part);
            sides.written(&(at..at + length), outcome.is_ok());
            outcome?;
            (rest, at) = (later, at + length);
        }
        Ok(())
    }
}

fn load_read(run: &ReadRun<'_>, len: usize) -> Result<Sectors<Plain>, IoError> {
    match run {
        ReadRun::Encrypted(run) => load_run(run.get(), len),
        ReadRun::Plain(run) => run.read(len),
    }
}

fn as_len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
