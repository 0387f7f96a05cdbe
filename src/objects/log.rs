//! The volume while it is open: reads, writes, flushes and the uploads.
//!
//! A write changes the map and the segment that is being filled, under one lock. A full segment is
//! sealed: it gets its header, and waits for one of the uploading threads. A flush makes an idle
//! thread seal what is there, so that flushes that come together share a segment. It is done when
//! the store has every segment up to that one.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use luksmith_formats::objects::checkpoint::{LeafPlace, SegmentUse};
use luksmith_formats::objects::journal::Entry;
use luksmith_formats::objects::leaf::{self, Extent};
use luksmith_formats::objects::segment::{self, Record, Sum};
use luksmith_formats::objects::volume::Volume;
use luksmith_formats::objects::{BLOCK, Position, name};

use super::ObjectsError;
use super::buffer::{BLOCK_BYTES, BLOCK_LEN, Buffer, Sealed, sums};
use super::cache::Cache;
use super::client::{Client, Of as _, Owner};
use super::journal::Journal;
use super::kept::Kept;
use super::map::{Blocks, Place, by_leaf};
use super::options::ObjectsOptions;
use super::state::State;

/// The most segments that wait for their upload, or are being uploaded.
const MOST_SEALED: usize = 16;

/// How long a segment that is in a journal is filled before it is uploaded.
const OPEN_FOR: Duration = Duration::from_secs(1);

/// How often a read looks for a block again whose segment was deleted meanwhile.
const LOOKS: usize = 8;

/// A volume that is open.
pub(super) struct Log {
    pub(super) client: Client,
    pub(super) volume: Volume,
    pub(super) options: ObjectsOptions,
    /// The epoch of this writer; 0 of a reader.
    pub(super) epoch: u32,
    pub(super) nonce: [u8; 16],
    /// Of a reader: the epoch of the writer that has not closed the volume.
    pub(super) unclosed: Option<u32>,
    pub(super) cache: Option<Cache>,
    /// Where flushes are done, if that is not the store.
    pub(super) journal: Option<Journal>,
    pub(super) state: Mutex<State>,
    /// Wakes the uploading threads.
    pub(super) work: Condvar,
    /// Wakes those who wait for uploads and checkpoints.
    pub(super) done: Condvar,
    /// Wakes the thread that makes checkpoints.
    pub(super) keep: Condvar,
    /// What only one checkpoint at a time may change.
    pub(super) kept: Mutex<Kept>,
}

/// A part of what is read.
enum Piece {
    Zeroes,
    Memory(Arc<Sealed>, u32),
    Stored { place: Place, at: u64 },
}

impl Log {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait<'a>(
        &self,
        on: &Condvar,
        state: MutexGuard<'a, State>,
    ) -> MutexGuard<'a, State> {
        on.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes every later call fail.
    pub(super) fn fail(&self, error: &ObjectsError) {
        self.fail_with(&mut self.lock(), error);
    }

    /// The same, while the state is locked.
    pub(super) fn fail_with(&self, state: &mut State, error: &ObjectsError) {
        state.failure.get_or_insert_with(|| error.into());
        for on in [&self.work, &self.done, &self.keep] {
            on.notify_all();
        }
    }

    /// How many blocks of data a segment has at most.
    pub(super) fn most_blocks(&self) -> u32 {
        self.volume.object_size / BLOCK_BYTES
    }

    fn position(&self, sequence: u64) -> Position {
        let epoch = self.epoch;
        Position { epoch, sequence }
    }

    /// The state with this leaf in memory.
    pub(super) fn with_leaf(&self, leaf: u32) -> Result<MutexGuard<'_, State>, ObjectsError> {
        let mut state = self.lock();
        loop {
            state.check()?;
            let Err(place) = state.map.is_loaded(leaf) else {
                return Ok(state);
            };
            let Some(place) = place else {
                state.map.insert(leaf, None, Vec::new());
                continue;
            };
            let run = state.map.read_with(leaf, place);
            drop(state);
            let leaves = self.read_leaves(&run)?;
            state = self.lock();
            // The wanted leaf last: to insert a leaf may free those before it.
            for ((number, place), extents) in run.into_iter().zip(leaves).rev() {
                state.map.insert(number, Some(place), extents);
            }
        }
    }

    /// Reads leaves that follow one another in an object. Those after one that is damaged are left
    /// out, and the first one is not.
    fn read_leaves(&self, run: &[(u32, LeafPlace)]) -> Result<Vec<Vec<Extent>>, ObjectsError> {
        let &[(first, place), .., (_, last)] = run else {
            let read = |&(leaf, place)| read_leaf(&self.client, &self.volume, leaf, place);
            return run.iter().map(read).collect();
        };
        let name = name::pack(place.root, place.pack);
        let start = place.range().start;
        let bytes = self.client.there(&name, start..last.range().end)?;
        let clip = |at: u64| {
            usize::try_from(at - start)
                .unwrap_or(usize::MAX)
                .min(bytes.len())
        };
        let mut leaves = Vec::new();
        for (number, place) in run {
            let bytes = &bytes[clip(place.range().start)..clip(place.range().end)];
            match leaf::decode(bytes, self.volume.uuid, *number) {
                Ok(extents) => leaves.push(extents),
                Err(error) if *number == first => return Err(error.of(&name)),
                Err(_) => break,
            }
        }
        Ok(leaves)
    }

    /// Reads whole blocks.
    pub(super) fn read(&self, first: u64, into: &mut [u8]) -> Result<(), ObjectsError> {
        let count = (into.len() / BLOCK_LEN) as u64;
        let mut rest = into;
        for blocks in by_leaf(first..first + count) {
            let (part, after) = rest.split_at_mut(blocks.count as usize * BLOCK_LEN);
            self.read_of_leaf(blocks, part)?;
            rest = after;
        }
        Ok(())
    }

    fn read_of_leaf(&self, blocks: Blocks, into: &mut [u8]) -> Result<(), ObjectsError> {
        let mut gone = String::new();
        for _ in 0..LOOKS {
            let pieces = self.pieces(blocks)?;
            let mut rest = &mut *into;
            let mut stored = Vec::new();
            for (piece, count) in pieces {
                let (part, after) = rest.split_at_mut(count as usize * BLOCK_LEN);
                rest = after;
                match piece {
                    Piece::Zeroes => part.fill(0),
                    Piece::Memory(sealed, index) => {
                        part.copy_from_slice(sealed.bytes(index, count));
                    }
                    Piece::Stored { place, at } => stored.push((place, at, part)),
                }
            }
            match self.read_stored(stored)? {
                None => return Ok(()),
                Some(name) => gone = name,
            }
        }
        Err(ObjectsError::missing(&gone))
    }

    /// Where the blocks are. Those of the segment that is being filled are copied.
    fn pieces(&self, blocks: Blocks) -> Result<Vec<(Piece, u32)>, ObjectsError> {
        let state = self.with_leaf(blocks.leaf)?;
        let current = self.position(state.next);
        let mut pieces = Vec::new();
        let mut rest = blocks;
        while rest.count > 0 {
            let (place, count) = state.map.find(rest);
            rest.start += count;
            rest.count -= count;
            let Some(place) = place else {
                pieces.push((Piece::Zeroes, count));
                continue;
            };
            if self.epoch != 0 && place.segment == current {
                // Kept as a segment of its own, since the buffer may change.
                let data = state.open.bytes(place.index, count).to_vec();
                let copy = Sealed {
                    position: current,
                    header: Vec::new(),
                    data,
                };
                pieces.push((Piece::Memory(Arc::new(copy), 0), count));
                continue;
            }
            let own = place.segment.epoch == self.epoch;
            let sealed = state.sealed.get(&place.segment.sequence).filter(|_| own);
            pieces.push(match sealed {
                Some(sealed) => (Piece::Memory(sealed.clone(), place.index), count),
                None => {
                    let used = state.map.segments.get(&place.segment).copied();
                    let Some(used) = used else {
                        let name = name::segment(place.segment);
                        return Err(ObjectsError::damaged(&name, "is in the map only"));
                    };
                    let at = u64::from(used.header) + u64::from(place.index) * BLOCK;
                    (Piece::Stored { place, at }, count)
                }
            });
        }
        Ok(pieces)
    }

    /// Reads from the store. `Some` is the name of an object that is not there.
    fn read_stored(
        &self,
        pieces: Vec<(Place, u64, &mut [u8])>,
    ) -> Result<Option<String>, ObjectsError> {
        let read = |(place, at, into): (Place, u64, &mut [u8])| {
            let name = name::segment(place.segment);
            let range = at..at + into.len() as u64;
            let read = match &self.cache {
                Some(cache) => cache.read(&self.client, place.segment, range)?,
                None => self.client.read(&name, range)?,
            };
            let Some(bytes) = read else {
                return Ok(Some(name));
            };
            if bytes.len() != into.len() {
                return Err(ObjectsError::damaged(&name, "ends too early"));
            }
            into.copy_from_slice(&bytes);
            Ok(None)
        };
        let answers = self.client.at_once(pieces, read)?;
        Ok(answers.into_iter().flatten().next())
    }

    /// Writes whole blocks.
    pub(super) fn write(&self, first: u64, bytes: &[u8]) -> Result<(), ObjectsError> {
        self.relieve_journal()?;
        let sums = sums(bytes);
        let mut at = 0;
        for blocks in by_leaf(first..first + sums.len() as u64) {
            let mut left = blocks;
            while left.count > 0 {
                let mut state = self.with_room(left.leaf)?;
                let position = self.position(state.next);
                let (done, full) = self.write_some(&mut state, left, first, at, bytes, &sums);
                let part = &bytes[at * BLOCK_LEN..(at + done as usize) * BLOCK_LEN];
                if !part.is_empty() {
                    let block = first + at as u64;
                    let entry = Entry::Data {
                        position,
                        block,
                        bytes: part,
                    };
                    self.note(&mut state, &entry)?;
                }
                left.start += done;
                left.count -= done;
                at += done as usize;
                if full {
                    self.seal(&mut state);
                }
            }
        }
        Ok(())
    }

    /// Writes blocks until the segment is full. Returns how many were written.
    fn write_some(
        &self,
        state: &mut State,
        blocks: Blocks,
        first: u64,
        at: usize,
        bytes: &[u8],
        sums: &[Sum],
    ) -> (u32, bool) {
        let current = self.position(state.next);
        let mut left = blocks;
        let mut done = 0;
        while left.count > 0 {
            let (place, count) = state.map.find(left);
            let from = at + done as usize;
            let part = |count: u32| {
                let to = from + count as usize;
                (&bytes[from * BLOCK_LEN..to * BLOCK_LEN], &sums[from..to])
            };
            let count = match place {
                Some(place) if place.segment == current => {
                    let (bytes, sums) = part(count);
                    state.open.overwrite(place.index, bytes, sums);
                    count
                }
                _ => {
                    let count = count.min(state.open.room(self.most_blocks()));
                    if count == 0 {
                        return (done, true);
                    }
                    let (bytes, sums) = part(count);
                    let index = state.open.push(first + from as u64, bytes, sums);
                    self.add(state, Blocks { count, ..left }, index);
                    count
                }
            };
            done += count;
            left.start += count;
            left.count -= count;
        }
        (done, state.open.room(self.most_blocks()) == 0)
    }

    /// Makes the map refer to new blocks of the segment that is being filled.
    fn add(&self, state: &mut State, blocks: Blocks, index: u32) {
        let segment = self.position(state.next);
        let used = state.map.segments.entry(segment);
        let used = used.or_insert_with(|| SegmentUse::new(0, 0));
        used.blocks = u16::try_from(index + blocks.count).unwrap_or(u16::MAX);
        state.map.set(blocks, Some(Place { segment, index }));
    }

    /// Writes one block. Its leaf is in memory, and the segment has room.
    pub(super) fn append(&self, state: &mut State, at: Blocks, block: u64, bytes: &[u8], sum: Sum) {
        let index = state.open.push(block, bytes, &[sum]);
        self.add(state, at, index);
    }

    /// The state with this leaf, when there is room for more data.
    fn with_room(&self, leaf: u32) -> Result<MutexGuard<'_, State>, ObjectsError> {
        loop {
            let mut state = self.with_leaf(leaf)?;
            let full = state.map.is_full();
            if state.sealed.len() < MOST_SEALED && !full {
                return Ok(state);
            }
            if full {
                state.checkpoint_wanted = true;
                self.keep.notify_all();
            }
            state = self.wait(&self.done, state);
            state.check()?;
        }
    }

    /// Makes blocks read as zeroes.
    pub(super) fn clear(&self, blocks: Range<u64>) -> Result<(), ObjectsError> {
        self.relieve_journal()?;
        for some in by_leaf(blocks) {
            let mut state = self.lock();
            state.check()?;
            if state.map.is_empty(some.leaf) {
                continue;
            }
            drop(state);
            state = self.with_room(some.leaf)?;
            self.clear_in(&mut state, some)?;
        }
        Ok(())
    }

    fn clear_in(&self, state: &mut State, blocks: Blocks) -> Result<(), ObjectsError> {
        let hole = state.map.find(blocks) == (None, blocks.count);
        if hole {
            return Ok(());
        }
        if state.open.room(self.most_blocks()) == 0 {
            self.seal(state);
        }
        let block = u64::from(blocks.leaf) * u64::from(leaf::BLOCKS) + u64::from(blocks.start);
        let count = blocks.count.into();
        state.open.record(Record::Hole { block, count });
        state.map.set(blocks, None);
        let position = self.position(state.next);
        let entry = Entry::Hole {
            position,
            block,
            count,
        };
        self.note(state, &entry)
    }

    /// Changes the size. What a smaller size leaves out is cleared first.
    pub(super) fn resize(&self, size: u64) -> Result<(), ObjectsError> {
        let old = self.lock().size;
        if size < old {
            let (first, end) = (size.div_ceil(BLOCK), old.div_ceil(BLOCK));
            self.clear(first..end)?;
        }
        let mut state = self.lock();
        state.check()?;
        state.open.record(Record::Resize { size });
        state.size = size;
        let position = self.position(state.next);
        self.note(&mut state, &Entry::Resize { position, size })
    }

    /// Finishes the segment that is being filled, and gives it to the uploading threads.
    pub(super) fn seal(&self, state: &mut State) {
        if state.open.is_empty() {
            return;
        }
        let position = self.position(state.next);
        let open = std::mem::replace(&mut state.open, Buffer::new());
        let sealed = open.seal(self.volume.uuid, position, self.nonce, state.previous);
        state.previous = segment::hash(&sealed.header);
        let blocks = sealed.data.len() / BLOCK_LEN;
        let used = state.map.segments.entry(position);
        let used = used.or_insert_with(|| SegmentUse::new(0, 0));
        used.header = u32::try_from(sealed.header.len()).unwrap_or(u32::MAX);
        used.blocks = u16::try_from(blocks).unwrap_or(u16::MAX);
        state.next += 1;
        state.wanted = false;
        state.open_since = None;
        state.objects_since += 1;
        state.bytes_since += sealed.data.len() as u64;
        let options = &self.options;
        if state.objects_since >= options.checkpoint_objects
            || state.bytes_since >= options.checkpoint_bytes
        {
            state.checkpoint_wanted = true;
            self.keep.notify_all();
        }
        let sealed = Arc::new(sealed);
        state.sealed.insert(position.sequence, sealed.clone());
        state.ready.push_back(sealed);
        self.work.notify_one();
    }

    /// Waits until the store has all that was written before.
    pub(super) fn flush_to_store(&self) -> Result<(), ObjectsError> {
        let mut state = self.lock();
        let last = match state.open.is_empty() {
            true => state.next - 1,
            false => {
                state.wanted = true;
                self.work.notify_one();
                state.next
            }
        };
        while state.uploaded_to < last {
            state.check()?;
            state = self.wait(&self.done, state);
        }
        state.check()
    }

    /// Waits until the store has all segments up to this one.
    pub(super) fn wait_for(&self, sequence: u64) -> Result<(), ObjectsError> {
        let mut state = self.lock();
        while state.uploaded_to < sequence {
            state.check()?;
            state = self.wait(&self.done, state);
        }
        state.check()
    }

    /// Waits until few segments wait for their upload.
    pub(super) fn with_few_sealed(&self) -> Result<MutexGuard<'_, State>, ObjectsError> {
        let mut state = self.lock();
        loop {
            state.check()?;
            if state.sealed.len() < MOST_SEALED / 2 {
                return Ok(state);
            }
            state = self.wait(&self.done, state);
        }
    }

    /// The work of an uploading thread.
    pub(super) fn upload(&self) {
        while let Some(sealed) = self.next_upload() {
            let sequence = sealed.position.sequence;
            let name = name::segment(sealed.position);
            match self.client.create(&name, &[&sealed.header, &sealed.data]) {
                Ok(Owner::Own) => {}
                Ok(Owner::Other(_)) => return self.fail(&ObjectsError::Fenced),
                Err(error) => return self.fail(&error),
            }
            if let Err(error) = self.check_claims() {
                return self.fail(&error);
            }
            let mut state = self.lock();
            state.sealed.remove(&sequence);
            state.uploaded.insert(sequence);
            while let Some(first) = state.uploaded.pop_first() {
                if first != state.uploaded_to + 1 {
                    state.uploaded.insert(first);
                    break;
                }
                state.uploaded_to = first;
            }
            self.shorten_journal(&mut state);
            self.done.notify_all();
        }
    }

    /// Fails if another writer has claimed a volume whose service overwrites, since this writer may
    /// have overwritten its fence. A writer claims before it reads the log. So it finds a segment
    /// that is in the log before this check, and this one is not acknowledged otherwise.
    fn check_claims(&self) -> Result<(), ObjectsError> {
        if !self.volume.unfenced {
            return Ok(());
        }
        let next = name::claim(self.epoch.saturating_add(1));
        match self.client.read(&next, 0..1)? {
            Some(_) => Err(ObjectsError::Fenced),
            None => Ok(()),
        }
    }

    fn next_upload(&self) -> Option<Arc<Sealed>> {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(sealed) = state.ready.pop_front() {
                return Some(sealed);
            }
            if state.wanted {
                state.wanted = false;
                self.seal(&mut state);
                continue;
            }
            if state.stop {
                return None;
            }
            // With a journal no flush seals a segment: one that is not full is sealed later.
            if state
                .open_since
                .is_some_and(|since| since.elapsed() >= OPEN_FOR)
            {
                self.seal(&mut state);
                continue;
            }
            state = match &self.journal {
                None => self.wait(&self.work, state),
                Some(_) => {
                    let waited = self.work.wait_timeout(state, OPEN_FOR);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// Reads a leaf from its pack.
pub(super) fn read_leaf(
    client: &Client,
    volume: &Volume,
    number: u32,
    place: LeafPlace,
) -> Result<Vec<Extent>, ObjectsError> {
    let name = name::pack(place.root, place.pack);
    let bytes = client.there(&name, place.range())?;
    leaf::decode(&bytes, volume.uuid, number).map_err(|error| error.of(&name))
}
