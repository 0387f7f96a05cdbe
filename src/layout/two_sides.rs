//! The layout of a volume during a reencryption: each block has its old or its new encryption.
//!
//! Everything before a boundary is new, and everything after the hot zone old. In the hot zone,
//! which begins at the boundary, each block is on its own. A block changes only under an exclusive
//! range lock of the volume, so a request that has locked its blocks can rely on their state.
//!
//! Before a reencryption and after it there is only one encryption, the old one.

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::side::{CipherRun, OldSide, PlainRun, Side};
use crate::backend::{Backend, IoError, Operation};

/// Two encryptions of the same consecutive bytes. Offsets count from the start of the data.
pub(crate) struct TwoSides {
    storage: Arc<dyn Backend>,
    /// The size of a block in bytes: whole sectors of both sides.
    block: u64,
    /// Where old ciphertext of a zone is, if it has to be read from there.
    copy: Option<ZoneCopy>,
    blocks: Mutex<Blocks>,
    /// Whether a flush, or a change of the header, has failed.
    failed: AtomicBool,
    /// Held during each flush, and each step after whose failure data may be lost.
    crucial: Mutex<()>,
}

/// A zone whose old ciphertext is on another storage, or at another place.
pub(crate) struct ZoneCopy {
    /// The zone.
    pub(crate) zone: Range<u64>,
    /// The storage of the copy.
    pub(crate) storage: Arc<dyn Backend>,
    /// The offset of the copy on it.
    pub(crate) at: u64,
}

/// The encryption of a block of the hot zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// The old one.
    Old,
    /// The new one.
    New,
    /// Unknown: a write failed, or nothing tells it. It is not read.
    Unknown,
}

/// The encryption of all blocks.
struct Blocks {
    old: OldSide,
    /// Missing without a reencryption. Then the boundary is 0, and no block is hot.
    new: Option<Arc<Side>>,
    /// Everything before it is new.
    boundary: u64,
    /// The blocks from the boundary on. Empty without a hot zone.
    hot: Vec<Block>,
    /// Whether the storage keeps all of its space, so that no zone fails for lack of it.
    keeps_space: bool,
}

impl TwoSides {
    /// Data that is new before `boundary`, and old after the blocks `hot`, which begin there.
    pub(crate) fn new(
        storage: Arc<dyn Backend>,
        old: OldSide,
        new: Option<Arc<Side>>,
        block: u64,
        boundary: u64,
        hot: Vec<Block>,
    ) -> Self {
        let blocks = Blocks {
            old,
            keeps_space: new.is_some(),
            new,
            boundary,
            hot,
        };
        Self {
            storage,
            block,
            copy: None,
            blocks: Mutex::new(blocks),
            failed: AtomicBool::new(false),
            crucial: Mutex::new(()),
        }
    }

    /// The same, with the old ciphertext of a zone elsewhere. Such data is only read.
    pub(crate) fn with_copy(self, copy: ZoneCopy) -> Self {
        Self {
            copy: Some(copy),
            ..self
        }
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Backend> {
        &self.storage
    }

    /// The size of a block in bytes.
    pub(crate) fn block(&self) -> u64 {
        self.block
    }

    /// The larger sector size of both sides, in bytes.
    pub(crate) fn sector_size(&self) -> u32 {
        let blocks = self.blocks();
        let new = blocks.new.as_ref().map_or(0, |new| new.crypt.sector_size());
        blocks.old.sector_size().max(new)
    }

    /// Whether the volume may only be read, by its ciphers.
    pub(crate) fn is_only_read(&self) -> bool {
        let blocks = self.blocks();
        let new = blocks
            .new
            .as_ref()
            .is_some_and(|new| new.crypt.is_only_read());
        new || blocks.old.is_only_read() || self.copy.is_some()
    }

    /// The offset of the data on its storage.
    pub(crate) fn start(&self) -> u64 {
        self.blocks().old.place(0)
    }

    /// Whether discards have no effect, so that the storage keeps its space.
    pub(crate) fn keeps_space(&self) -> bool {
        self.blocks().keeps_space
    }

    /// Lets discards have no effect any more, or have one again. The caller has locked the whole
    /// volume exclusively.
    pub(crate) fn keep_space(&self, keeps: bool) {
        self.blocks().keeps_space = keeps;
    }

    /// Begins a reencryption to another side.
    pub(crate) fn begin(&self, new: Arc<Side>) {
        self.blocks().new = Some(new);
    }

    /// Ends a reencryption in which everything is converted. The caller has locked the whole volume
    /// exclusively.
    pub(crate) fn settle(&self) {
        let mut blocks = self.blocks();
        if let Some(new) = blocks.new.take() {
            blocks.old = OldSide::Encrypted(new);
        }
        blocks.boundary = 0;
        blocks.hot = Vec::new();
        blocks.keeps_space = false;
    }

    /// The encryption of the start of a range of whole blocks, for reading, and the number of bytes
    /// that have it.
    ///
    /// # Errors
    /// Returns [`IoError::Failed`] if the encryption of the first block is unknown.
    pub(crate) fn run_to_read(&self, range: &Range<u64>) -> Result<(ReadRun<'_>, u64), IoError> {
        let start = range.start;
        let blocks = self.blocks();
        if let Some(copy) = &self.copy
            && copy.zone.contains(&start)
        {
            let at = copy.at + (start - copy.zone.start);
            let run = blocks.old_run(&*copy.storage, at, start);
            return Ok((run, copy.zone.end.min(range.end) - start));
        }
        let (block, mut end) = blocks.run(start, self.block);
        if let Some(copy) = &self.copy
            && start < copy.zone.start
        {
            end = end.min(copy.zone.start);
        }
        let run = match block {
            Block::Old => blocks.old_run(&*self.storage, blocks.old.place(start), start),
            Block::New => ReadRun::Encrypted(self.run(blocks.new_side()?, start)),
            Block::Unknown => {
                let what = "it is not known whether this block is converted";
                return Err(IoError::Failed {
                    operation: Operation::Read,
                    offset: blocks.old.place(start),
                    source: io::Error::other(what),
                });
            }
        };
        Ok((run, end.min(range.end) - start))
    }

    /// The encryption that a write at the start of a range of whole blocks has, and the number of
    /// bytes that have it. In the hot zone it is the new one, also over old blocks.
    ///
    /// # Errors
    /// Returns [`IoError::Failed`] where the data is plaintext: that is never written.
    pub(crate) fn run_to_write(&self, range: &Range<u64>) -> Result<(SideRun<'_>, u64), IoError> {
        let start = range.start;
        let blocks = self.blocks();
        let hot_end = blocks.end(self.block);
        let (side, end) = match (start < hot_end, &blocks.old) {
            (true, _) => (blocks.new_side()?, hot_end),
            (false, OldSide::Encrypted(side)) => (side, u64::MAX),
            (false, OldSide::Plain { .. }) => {
                return Err(IoError::Failed {
                    operation: Operation::Write,
                    offset: blocks.old.place(start),
                    source: io::Error::other("this block is not encrypted yet"),
                });
            }
        };
        Ok((self.run(side, start), end.min(range.end) - start))
    }

    fn run(&self, side: &Arc<Side>, offset: u64) -> SideRun<'_> {
        SideRun {
            storage: &*self.storage,
            at: side.place(offset),
            side: side.clone(),
            offset,
        }
    }

    /// Records how a write to a range ended. The caller has locked it exclusively.
    pub(crate) fn written(&self, range: &Range<u64>, succeeded: bool) {
        let mut blocks = self.blocks();
        let hot = blocks.inside(range, self.block);
        for block in &mut blocks.hot[hot] {
            match (succeeded, *block) {
                (true, _) => *block = Block::New,
                (false, Block::New) => {}
                (false, _) => *block = Block::Unknown,
            }
        }
    }

    /// Declares that the zone is hot. It begins at the boundary, and its blocks are old.
    pub(crate) fn declare(&self, zone: &Range<u64>) {
        let count = usize::try_from((zone.end - zone.start) / self.block).unwrap_or(0);
        self.blocks().hot = vec![Block::Old; count];
    }

    /// Declares that everything before `boundary` is new, and everything after it old.
    pub(crate) fn advance(&self, boundary: u64) {
        let mut blocks = self.blocks();
        blocks.boundary = boundary;
        blocks.hot = Vec::new();
    }

    /// The parts of a range in the hot zone that are not new, each with its state.
    pub(crate) fn not_new(&self, range: &Range<u64>) -> Vec<(Range<u64>, Block)> {
        let blocks = self.blocks();
        let mut parts = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let (block, end) = blocks.run(at, self.block);
            let end = end.min(range.end);
            if block != Block::New {
                parts.push((at..end, block));
            }
            at = end;
        }
        parts
    }

    /// Carries out a step after whose failure data may be lost: every later flush and every change
    /// fails then. No flush of a client is between the failure and that.
    ///
    /// # Errors
    /// That of the step.
    pub(crate) fn crucial<T, E: From<IoError>>(
        &self,
        step: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let _one = self.crucial.lock().unwrap_or_else(PoisonError::into_inner);
        self.check(Operation::Flush)?;
        let outcome = step();
        if outcome.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        outcome
    }

    /// Carries out a change of the header without which no data is lost. Only if a flush fails in
    /// it, what clients have written may be lost, and every later flush and every change fails.
    ///
    /// # Errors
    /// That of the change.
    pub(crate) fn change_header<T, E: Error + From<IoError> + 'static>(
        &self,
        change: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let outcome = self.crucial::<_, E>(|| match change() {
            Err(error) if is_of_flush(&error) => Err(error),
            other => Ok(other),
        });
        outcome?
    }

    /// Makes everything durable that was written before this call.
    ///
    /// # Errors
    /// An error of the storage. After the first one every later call fails.
    pub(crate) fn flush(&self) -> Result<(), IoError> {
        self.crucial(|| self.storage.flush())
    }

    /// Fails if data may be lost, since a flush or a change of the header has failed.
    ///
    /// # Errors
    /// Returns [`IoError::Failed`].
    pub(crate) fn check(&self, operation: Operation) -> Result<(), IoError> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(IoError::Failed {
            operation,
            offset: 0,
            source: io::Error::other("a step of the reencryption, or a flush, has failed"),
        })
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Consecutive sectors on a storage that are read.
pub(crate) enum ReadRun<'a> {
    /// They are encrypted.
    Encrypted(SideRun<'a>),
    /// They are plaintext, which is not encrypted in place yet.
    Plain(PlainRun<'a>),
}

/// Consecutive sectors on a storage, with the cipher of one side.
pub(crate) struct SideRun<'a> {
    storage: &'a dyn Backend,
    at: u64,
    side: Arc<Side>,
    /// The offset of the first sector from the start of the data.
    offset: u64,
}

impl SideRun<'_> {
    pub(crate) fn get(&self) -> CipherRun<'_> {
        CipherRun {
            storage: self.storage,
            at: self.at,
            iv: self.side.iv(self.offset),
            crypt: &self.side.crypt,
        }
    }
}

/// Whether a flush of the storage has failed.
fn is_of_flush(error: &(dyn Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(cause) = error {
        let io = cause.downcast_ref();
        if let Some(IoError::Failed {
            operation: Operation::Flush,
            ..
        }) = io
        {
            return true;
        }
        error = cause.source();
    }
    false
}

impl Blocks {
    /// The new side, which is set before a boundary or a hot zone is.
    fn new_side(&self) -> Result<&Arc<Side>, IoError> {
        let missing = || IoError::Failed {
            operation: Operation::Read,
            offset: self.old.place(0),
            source: io::Error::other("no reencryption has begun"),
        };
        self.new.as_ref().ok_or_else(missing)
    }

    /// The old bytes from an offset on, which are at this place of a storage.
    fn old_run<'a>(&self, storage: &'a dyn Backend, at: u64, offset: u64) -> ReadRun<'a> {
        match &self.old {
            OldSide::Plain { .. } => ReadRun::Plain(PlainRun { storage, at }),
            OldSide::Encrypted(side) => ReadRun::Encrypted(SideRun {
                storage,
                at,
                side: side.clone(),
                offset,
            }),
        }
    }

    /// The end of the hot zone, or the boundary without one.
    fn end(&self, size: u64) -> u64 {
        self.boundary + self.hot.len() as u64 * size
    }

    /// The state of the block at `start`, and the end of the blocks after it with the same state.
    fn run(&self, start: u64, size: u64) -> (Block, u64) {
        let hot = self.inside(&(start..u64::MAX), size);
        match self.hot.get(hot.clone()).and_then(<[Block]>::split_first) {
            _ if start < self.boundary => (Block::New, self.boundary),
            None => (Block::Old, u64::MAX),
            Some((first, rest)) => {
                let same = rest.iter().take_while(|block| *block == first).count();
                let end = self.boundary + (hot.start + 1 + same) as u64 * size;
                (*first, end)
            }
        }
    }

    /// The numbers of the blocks of the hot zone in a range.
    fn inside(&self, range: &Range<u64>, size: u64) -> Range<usize> {
        let number = |at: u64| {
            let number = at.saturating_sub(self.boundary).div_ceil(size);
            usize::try_from(number).map_or(self.hot.len(), |number| number.min(self.hot.len()))
        };
        number(range.start)..number(range.end)
    }
}

impl fmt::Debug for TwoSides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks = self.blocks();
        f.debug_struct("TwoSides")
            .field("old", &blocks.old)
            .field("new", &blocks.new)
            .field("boundary", &blocks.boundary)
            .finish_non_exhaustive()
    }
}
