//! The store: logs whose writers share each wait for the disk, and the pages behind them.
//!
//! A change is in the log before the storage has it. Threads append records in memory; one of them
//! writes all that there are in one frame and makes them durable, while the others wait. When a log
//! is long, the other one begins, and the tags of the first one go to the pages.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use luksmith_formats::trust::tags::head::Head;
use luksmith_formats::trust::tags::log::{FRAME, frame, head};
use luksmith_formats::trust::tags::{NEVER, Tag};

use super::error::TagsError;
use super::file::StoreFiles;
use super::options::TagsOptions;
use super::pages::{Pages, write_head};
use super::state::{Begun, State};
use crate::backend::IoError;

/// The tags of one volume.
pub(super) struct Store {
    files: StoreFiles,
    pages: Pages,
    size: u64,
    state: Mutex<State>,
    changed: Condvar,
    /// Held while the tags of a log go to the pages.
    checkpoint: Mutex<()>,
    options: TagsOptions,
}

/// The tags of consecutive blocks.
pub(super) struct Known {
    pub(super) tags: Vec<Tag>,
    /// Whether one of the blocks can have several contents.
    pub(super) is_doubtful: bool,
}

impl Store {
    /// A store of which only the pages are read, until [`restart`](Self::restart) has begun the
    /// logs: the first one has this generation, and the other one the next.
    pub(super) fn new(
        files: StoreFiles,
        pages: Pages,
        size: u64,
        generation: u64,
        options: TagsOptions,
    ) -> Self {
        Self {
            files,
            pages,
            size,
            state: Mutex::new(State::new(0, generation)),
            changed: Condvar::new(),
            checkpoint: Mutex::new(()),
            options,
        }
    }

    /// The bytes of the volume that have tags.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The tags of consecutive blocks. The caller has locked the blocks.
    pub(super) fn tags(&self, blocks: Range<u64>) -> Result<Known, TagsError> {
        let count = usize::try_from(blocks.end - blocks.start).unwrap_or(0);
        // What leaves the logs is in the pages before. So the logs are looked at first.
        let found = self.lock().find(&blocks);
        let mut tags = vec![NEVER; count];
        if found.newer.len() < count {
            self.pages.read(&self.files, blocks.start, &mut tags)?;
        }
        for (index, tag) in found.newer {
            if let Some(place) = tags.get_mut(index) {
                *place = tag;
            }
        }
        Ok(Known {
            tags,
            is_doubtful: found.is_doubtful,
        })
    }

    /// The contents that a block can have, if they are several.
    pub(super) fn contents(&self, block: u64) -> Option<Vec<Tag>> {
        self.lock().contents(block).map(<[Tag]>::to_vec)
    }

    /// Begins a write to consecutive blocks: when this returns, the storage may be changed.
    pub(super) fn begin_write(&self, block: u64, tags: &[Tag]) -> Result<Begun, TagsError> {
        let begun = {
            let mut state = self.room()?;
            let begun = state.begin_write(block, tags);
            begun.map_err(|_| {
                let message = "too many writes of a block have failed";
                TagsError::Failed(message.into())
            })?
        };
        self.begun(begun)
    }

    /// Begins to make consecutive blocks read as zeroes.
    pub(super) fn begin_never(&self, block: u64, count: u32) -> Result<Begun, TagsError> {
        let begun = self.room()?.begin_never(block, count);
        self.begun(begun)
    }

    fn begun(&self, begun: Begun) -> Result<Begun, TagsError> {
        let written = self.commit(begun.position, !self.options.relaxed);
        written.inspect_err(|_| self.lock().abandon(begun))?;
        Ok(begun)
    }

    /// The storage has a change.
    pub(super) fn end(&self, begun: Begun, block: u64, tags: &[Tag]) {
        let mut state = self.lock();
        state.end(begun, block, tags);
        self.notify(&state);
    }

    /// The storage reported a failure of a write. The caller has locked the blocks.
    pub(super) fn fail(&self, begun: Begun, block: u64, new: &[Tag]) {
        let old = self.tags(block..block + new.len() as u64);
        let mut state = self.lock();
        match old {
            Ok(old) => state.fail(begun, block, &old.tags, new),
            // It stays in flight: nothing that depends on it is said to be durable.
            Err(error) => state.failed = Some(error.to_string()),
        }
        self.notify(&state);
    }

    /// A block that could have several contents has this one, or none of them, for all later
    /// readers. The caller has locked the block.
    pub(super) fn settle(&self, block: u64, tag: Option<Tag>) -> Result<(), TagsError> {
        let position = {
            let mut state = self.lock();
            state.settle(block, tag);
            state.appended
        };
        self.commit(position, true)
    }

    /// Flushes the storage, and remembers what is durable there.
    pub(super) fn flush(
        &self,
        flush: impl FnOnce() -> Result<(), IoError>,
    ) -> Result<(), TagsError> {
        let completed = {
            let state = self.lock();
            check(&state)?;
            state.completed()
        };
        flush()?;
        self.mark(completed)
    }

    /// All changes up to this one are durable on the storage.
    fn mark(&self, sequence: u64) -> Result<(), TagsError> {
        let position = {
            let mut state = self.lock();
            state.mark(sequence);
            state.appended
        };
        self.commit(position, true)
    }

    /// Makes the log durable up to this position, or hands it to the system.
    fn commit(&self, position: u64, durable: bool) -> Result<(), TagsError> {
        let mut state = self.lock();
        loop {
            check(&state)?;
            let reached = match durable {
                true => state.synced,
                false => state.written,
            };
            if reached >= position {
                return Ok(());
            }
            state = match state.is_busy {
                true => self.wait(state),
                false => self.write(state, durable),
            };
        }
    }

    /// Writes all records that there are, for all threads that wait for some of them.
    fn write<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        durable: bool,
    ) -> MutexGuard<'a, State> {
        let before = (state.log, state.synced < state.written);
        let switched = self.is_full(&state) && state.has_spare;
        if switched {
            state.switch();
        }
        state.is_busy = true;
        let payload = std::mem::take(&mut state.payload);
        let (log, generation, at) = (state.log, state.generation, state.at);
        let position = state.appended;
        if !payload.is_empty() {
            state.at += (FRAME + payload.len()) as u64;
        }
        drop(state);
        let written = || -> Result<(), TagsError> {
            if let (true, (log, true)) = (switched, before) {
                self.files.log(log).sync()?;
            }
            let file = self.files.log(log);
            if !payload.is_empty() {
                file.write_at(at, &frame(generation, at, &payload))?;
            }
            match durable {
                true => file.sync(),
                false => Ok(()),
            }
        };
        let written = written();
        let mut state = self.lock();
        state.is_busy = false;
        match written {
            Ok(()) => {
                state.written = position;
                if durable {
                    state.synced = position;
                }
            }
            // The system reports that once only, and it is not known what is durable.
            Err(error) => state.failed = Some(crate::backend::chain(&error)),
        }
        self.changed.notify_all();
        state
    }

    /// The state, when there is room for another change.
    fn room(&self) -> Result<MutexGuard<'_, State>, TagsError> {
        let mut state = self.lock();
        loop {
            check(&state)?;
            // The other log is still in use.
            if !self.is_full(&state) || state.has_spare {
                return Ok(state);
            }
            state = self.wait(state);
        }
    }

    fn is_full(&self, state: &State) -> bool {
        state.is_full(self.options.log_bytes, self.options.log_blocks)
    }

    /// Moves the tags of the log that retires to the pages, if there is one. `flush` is of the
    /// storage.
    pub(super) fn checkpoint(
        &self,
        flush: impl FnOnce() -> Result<(), IoError>,
    ) -> Result<(), TagsError> {
        let _one = lock(&self.checkpoint);
        let done = self.try_checkpoint(flush);
        if let Err(error) = &done {
            // What was written may be lost, and the log has no room.
            let mut state = self.lock();
            state.failed = Some(crate::backend::chain(error));
            self.changed.notify_all();
        }
        done
    }

    fn try_checkpoint(&self, flush: impl FnOnce() -> Result<(), IoError>) -> Result<(), TagsError> {
        let completed = {
            let mut state = self.lock();
            while state.is_retiring_in_flight() {
                check(&state)?;
                state = self.wait(state);
            }
            if state.retiring.is_none() {
                return Ok(());
            }
            state.completed()
        };
        flush()?;
        self.mark(completed)?;
        let (tags, spare, generation) = {
            let state = self.lock();
            let Some(retiring) = &state.retiring else {
                return Ok(());
            };
            (retiring.tags.clone(), 1 - state.log, state.generation + 1)
        };
        self.pages.write(&self.files, &tags)?;
        self.files.tags().sync()?;
        let log = self.files.log(spare);
        log.write_at(0, &head(generation))?;
        log.sync()?;
        let mut state = self.lock();
        state.retiring = None;
        state.has_spare = true;
        self.changed.notify_all();
        Ok(())
    }

    /// Lets the present log retire now, if the other one is free.
    pub(super) fn retire(&self) -> Result<(), TagsError> {
        loop {
            let position = self.lock().appended;
            self.commit(position, true)?;
            let mut state = self.lock();
            // Nothing of this log is written later, or not durable.
            if !state.is_busy && state.synced == state.appended {
                if state.has_spare {
                    state.switch();
                }
                return Ok(());
            }
        }
    }

    /// Whether a log retires, whose tags can go to the pages.
    pub(super) fn has_retiring(&self) -> bool {
        let state = self.lock();
        state.retiring.is_some() && state.failed.is_none()
    }

    fn notify(&self, state: &State) {
        if state.retiring.is_some() || state.failed.is_some() {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the tags that were in the logs to the pages, and begins both logs anew. `head` says
    /// that their earlier generations do not count.
    pub(super) fn restart(&self, tags: &BTreeMap<u64, Tag>, new: &Head) -> Result<(), TagsError> {
        self.pages.write(&self.files, tags)?;
        self.files.tags().sync()?;
        let generation = self.lock().generation;
        write_head(self.files.tags(), new)?;
        for number in [0, 1] {
            let log = self.files.log(number);
            log.write_at(0, &head(generation + number as u64))?;
            log.sync()?;
        }
        Ok(())
    }

    /// The tags that were found to be right when they were opened for reading.
    pub(super) fn keep(&self, tags: impl IntoIterator<Item = (u64, Tag)>) {
        self.lock().keep(tags);
    }
}

fn check(state: &State) -> Result<(), TagsError> {
    match &state.failed {
        None => Ok(()),
        Some(why) => Err(TagsError::Failed(why.clone())),
    }
}

// No code panics while it holds one of these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
