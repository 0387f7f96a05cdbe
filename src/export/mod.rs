//! A volume as others open it: under a name, perhaps for reading only, with a word on discards. The protocols are
//! below: [`nbd`].
//!
//! An export answers in the volume's own bytes, as whole sectors where it can. It must never confirm what it
//! cannot know: once a flush has failed, every later one fails too, on whatever connection it comes.

pub mod nbd;
mod pace;
mod troubles;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::{IoError, Operation};
use crate::sectors::{Plain, Sectors};
use crate::volume::Volume;
use pace::Pace;
use troubles::Troubles;

/// What becomes of a client's word that it needs some bytes no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discard {
    /// Clients cannot say so.
    #[default]
    Deny,
    /// The bytes are overwritten with encrypted zeroes: the storage does not see which sectors are free.
    Zeroes,
    /// The storage gives the sectors up, and sees which are free.
    Pass,
}

/// A volume with its name and its rules.
#[derive(Debug)]
pub struct Export {
    name: String,
    description: String,
    volume: Arc<Volume>,
    read_only: bool,
    discard: Discard,
    /// Whether a flush has failed. Locked over each flush, so that none is confirmed while another fails.
    flush_failed: Mutex<bool>,
    /// How long the storage lets reads and writes wait, and how long flushes.
    pace: Pace,
    flush_pace: Pace,
    /// What was said of the storage.
    troubles: Troubles,
}

impl Export {
    /// `volume` under a name, which may be empty: the default export.
    #[must_use]
    pub fn new(name: impl Into<String>, volume: Arc<Volume>) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            read_only: volume.is_read_only(),
            volume,
            discard: Discard::default(),
            flush_failed: Mutex::new(false),
            pace: Pace::default(),
            flush_pace: Pace::default(),
            troubles: Troubles::default(),
        }
    }

    /// With a text for people.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// For reading only. What is opened so stays so.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only |= read_only;
        self
    }

    /// With another rule on discards than [`Discard::Deny`].
    #[must_use]
    pub fn discard(mut self, discard: Discard) -> Self {
        self.discard = discard;
        self
    }

    /// Once this has returned, all that was written before, through whatever connection, has reached stable storage.
    ///
    /// # Errors
    /// What the storage says; and once it has said so, always.
    pub fn flush(&self) -> Result<(), IoError> {
        if self.read_only {
            return Ok(());
        }
        let mut failed = self
            .flush_failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *failed {
            return Err(IoError::Failed {
                operation: Operation::Flush,
                offset: 0,
                source: std::io::Error::other("an earlier flush has failed"),
            });
        }
        let outcome = self.flush_pace.of(0, || self.volume.flush());
        *failed = outcome.is_err();
        self.noted(outcome)
    }

    fn read(&self, offset: u64, len: usize) -> Result<Bytes, IoError> {
        let asked = offset..offset.saturating_add(len as u64);
        let whole = self.volume.units_around(asked.clone());
        let read = self.pace.of(len, || {
            if whole.end > self.volume.size() {
                // The last block of the storage reaches over the end of the volume.
                let mut sectors = Sectors::<Plain>::with_len(len);
                self.volume.read_at(offset, sectors.as_mut_slice())?;
                return Ok(Bytes::from(sectors));
            }
            let start = usize::try_from(offset - whole.start).unwrap_or(usize::MAX);
            let units = usize::try_from(whole.end - whole.start).unwrap_or(usize::MAX);
            let sectors = self.volume.read_sectors(whole.start, units)?;
            Ok(Bytes {
                sectors,
                range: start..start + len,
            })
        });
        self.noted(read)
    }

    fn write(&self, offset: u64, bytes: Sectors<Plain>) -> Result<(), IoError> {
        let range = offset..offset.saturating_add(bytes.len() as u64);
        self.changeable(Operation::Write)?;
        let written = self.pace.of(bytes.len(), || {
            if self.volume.units_around(range.clone()) == range {
                self.volume.write_sectors(offset, bytes)
            } else {
                self.volume.write_at(offset, bytes.as_slice())
            }
        });
        self.noted(written)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.changeable(Operation::WriteZeroes)?;
        self.noted(self.volume.write_zeroes(range))
    }

    fn prefetch(&self, range: Range<u64>) -> Result<(), IoError> {
        self.noted(self.volume.prefetch(range))
    }

    fn give_up(&self, range: Range<u64>) -> Result<(), IoError> {
        self.changeable(Operation::Discard)?;
        match self.discard {
            Discard::Deny => Err(IoError::Unsupported(Operation::Discard)),
            Discard::Zeroes => self.noted(self.volume.write_zeroes(range)),
            Discard::Pass => self.noted(self.volume.discard(range)),
        }
    }

    fn noted<T>(&self, outcome: Result<T, IoError>) -> Result<T, IoError> {
        self.troubles.look(&self.name, outcome)
    }

    fn changeable(&self, operation: Operation) -> Result<(), IoError> {
        if self.read_only {
            Err(IoError::ReadOnly(operation))
        } else {
            Ok(())
        }
    }
}

/// Bytes of a volume inside the whole sectors that hold them.
struct Bytes {
    sectors: Sectors<Plain>,
    range: Range<usize>,
}

impl From<Sectors<Plain>> for Bytes {
    fn from(sectors: Sectors<Plain>) -> Self {
        Self {
            range: 0..sectors.len(),
            sectors,
        }
    }
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        &self.sectors.as_slice()[self.range.clone()]
    }
}
