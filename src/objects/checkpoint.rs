//! Checkpoints: the map goes to the store, so that the log before it is not read again, and
//! segments without live blocks are deleted.
//!
//! A segment, a pack or an index is deleted only after the store has a root that does not refer to
//! it, and if no snapshot does. A writer that was fenced cannot create a root, so it deletes
//! nothing that its successor needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};

use luksmith_formats::objects::checkpoint::{Index, KeptSnapshot, LeafPlace, Root};
use luksmith_formats::objects::volume::Volume;
use luksmith_formats::objects::{Position, RootId, leaf, name};
use sha2::{Digest as _, Sha256};

use super::ObjectsError;
use super::client::{Client, Of as _, Owner};
use super::kept::{Kept, PackId};
use super::log::Log;
use super::state::State;

/// The size of a pack in bytes, above which another one is begun.
const PACK: usize = 4 << 20;

/// How many packs there may be beside those that are needed, before leaves are moved together.
const SPARE_PACKS: u64 = 16;

/// What a checkpoint has written, before its root.
struct Written {
    root: Root,
    index: Index,
    packs: Vec<Vec<u8>>,
    leaves: Vec<(u32, Option<LeafPlace>)>,
    last: u64,
}

impl Log {
    pub(super) fn lock_kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a checkpoint, and deletes what it makes unnecessary.
    pub(super) fn checkpoint(&self) -> Result<(), ObjectsError> {
        let mut kept = self.lock_kept();
        self.checkpoint_with(&mut kept, |_| Ok(()))
    }

    /// The same, with a change of the snapshots or of the map that becomes durable with it.
    pub(super) fn checkpoint_with(
        &self,
        kept: &mut Kept,
        change: impl FnOnce(&mut State) -> Result<(), ObjectsError>,
    ) -> Result<(), ObjectsError> {
        self.gather_packs()?;
        let before = packs(self.lock().map.places());
        let old = self.lock().root;
        let written = self.encode(kept, change)?;
        let saved = self.store(&written);
        if let Err(error) = saved {
            // What is in memory does not agree with the store any more.
            self.fail(&error);
            return Err(error);
        }
        let mut state = self.lock();
        state.map.saved(&written.leaves);
        state.root = Some(written.root.id);
        let after = packs(state.map.places());
        drop(state);
        self.done.notify_all();
        self.find_kept(kept, &written.index.snapshots)?;
        let gone: Vec<PackId> = before
            .into_keys()
            .filter(|id| !after.contains_key(id))
            .collect();
        self.delete(kept, &written, &gone, old)
    }

    /// Takes what the checkpoint consists of, under the lock.
    fn encode(
        &self,
        kept: &mut Kept,
        change: impl FnOnce(&mut State) -> Result<(), ObjectsError>,
    ) -> Result<Written, ObjectsError> {
        let mut state = self.lock();
        state.check()?;
        self.seal(&mut state);
        change(&mut state)?;
        state.checkpoint_wanted = false;
        (state.bytes_since, state.objects_since) = (0, 0);
        let (uuid, nonce) = (self.volume.uuid, self.nonce);
        let id = kept.next(self.epoch);
        kept.number = id.number;
        let last = state.next - 1;
        let mut places = state.map.places().clone();
        let mut packs = vec![Vec::new()];
        let mut leaves = Vec::new();
        for (number, extents) in state.map.begin_saving() {
            if extents.is_empty() {
                places.remove(&number);
                leaves.push((number, None));
                continue;
            }
            if packs.last().is_some_and(|pack| pack.len() >= PACK) {
                packs.push(Vec::new());
            }
            let pack = u16::try_from(packs.len() - 1).unwrap_or(u16::MAX);
            if let Some(bytes) = packs.last_mut() {
                let offset = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                // A leaf has at most 8192 extents.
                let extent_count = u16::try_from(extents.len()).unwrap_or(u16::MAX);
                let place = LeafPlace::new(id, pack, offset, extent_count);
                leaf::encode(bytes, uuid, number, extents);
                places.insert(number, place);
                leaves.push((number, Some(place)));
            }
        }
        let mut index = Index::default();
        index.leaves = places.into_iter().collect();
        index.segments = state
            .map
            .segments
            .iter()
            .map(|(at, used)| (*at, *used))
            .collect();
        index.snapshots = state.snapshots.clone();
        let mut root = Root::new(uuid, id, nonce);
        root.position = Position {
            epoch: self.epoch,
            sequence: last,
        };
        root.hash = state.previous;
        root.size = state.size;
        Ok(Written {
            root,
            index,
            packs,
            leaves,
            last,
        })
    }

    /// Uploads a checkpoint, the root last.
    fn store(&self, written: &Written) -> Result<(), ObjectsError> {
        let id = written.root.id;
        for (number, pack) in (0..).zip(&written.packs) {
            if !pack.is_empty() {
                self.create(&name::pack(id, number), pack)?;
            }
        }
        let index = written.index.encode(self.volume.uuid, id);
        self.create(&name::index(id), &index)?;
        let mut root = written.root;
        root.index_length = u32::try_from(index.len()).unwrap_or(u32::MAX);
        root.index_hash = Sha256::digest(&index).into();
        self.wait_for(written.last)?;
        self.create(&name::root(id), &root.encode())
    }

    /// Creates an object that only this writer creates.
    fn create(&self, name: &str, bytes: &[u8]) -> Result<(), ObjectsError> {
        match self.client.create_whole(name, bytes)? {
            Owner::Own => Ok(()),
            Owner::Other(_) => Err(ObjectsError::Fenced),
        }
    }

    /// Deletes what neither the checkpoint nor a snapshot refers to.
    fn delete(
        &self,
        kept: &Kept,
        written: &Written,
        packs: &[PackId],
        old: Option<RootId>,
    ) -> Result<(), ObjectsError> {
        let dead: Vec<Position> = written
            .index
            .segments
            .iter()
            .filter(|(at, used)| used.live == 0 && !kept.segments.contains(at))
            .map(|(at, _)| *at)
            .collect();
        let packs = packs.iter().filter(|id| !kept.packs.contains(id));
        let old = old.filter(|id| !kept.roots.contains(id));
        let names: Vec<String> = dead
            .iter()
            .map(|at| name::segment(*at))
            .chain(packs.map(|(id, number)| name::pack(*id, *number)))
            .chain(old.map(name::index))
            .collect();
        self.client
            .at_once(names, |name| self.client.remove(&name))?;
        let mut state = self.lock();
        for at in dead {
            state.map.segments.remove(&at);
        }
        Ok(())
    }

    /// Marks leaves of packs that are mostly unused, so that the next checkpoint moves them.
    fn gather_packs(&self) -> Result<(), ObjectsError> {
        let (places, mut counts) = {
            let state = self.lock();
            let places = state.map.places().clone();
            let counts = packs(&places);
            (places, counts)
        };
        let bytes: u64 = counts.values().sum();
        let most = SPARE_PACKS + 2 * (bytes / PACK as u64);
        let mut moved = BTreeSet::new();
        while counts.len() as u64 > most
            && let Some((id, _)) = counts.iter().min_by_key(|(_, bytes)| **bytes)
        {
            let id = *id;
            counts.remove(&id);
            moved.insert(id);
        }
        for (leaf, place) in places {
            if moved.contains(&(place.root, place.pack)) {
                self.with_leaf(leaf)?.map.touch(leaf);
            }
        }
        Ok(())
    }

    /// Finds what the snapshots refer to.
    pub(super) fn find_kept(
        &self,
        kept: &mut Kept,
        snapshots: &[KeptSnapshot],
    ) -> Result<(), ObjectsError> {
        let roots: BTreeSet<RootId> = snapshots.iter().map(|snapshot| snapshot.root).collect();
        if roots == kept.roots {
            return Ok(());
        }
        let (mut segments, mut packs) = (BTreeSet::new(), BTreeSet::new());
        for id in &roots {
            let (_, index) = self.client.root_and_index(&self.volume, *id)?;
            packs.extend(index.leaves.iter().map(|(_, at)| (at.root, at.pack)));
            let live = index.segments.iter().filter(|(_, used)| used.live > 0);
            segments.extend(live.map(|(at, _)| *at));
        }
        (kept.roots, kept.segments, kept.packs) = (roots, segments, packs);
        Ok(())
    }
}

/// How many bytes of each pack the leaves have.
fn packs(places: &BTreeMap<u32, LeafPlace>) -> BTreeMap<PackId, u64> {
    let mut packs = BTreeMap::new();
    for place in places.values() {
        let range = place.range();
        *packs.entry((place.root, place.pack)).or_default() += range.end - range.start;
    }
    packs
}

impl Client {
    /// A checkpoint that is there.
    pub(super) fn root_and_index(
        &self,
        volume: &Volume,
        id: RootId,
    ) -> Result<(Root, Index), ObjectsError> {
        let name = name::root(id);
        let root = Root::decode(&self.whole(&name)?, volume.uuid, id);
        let root = root.map_err(|error| error.of(&name))?;
        let name = name::index(id);
        let bytes = self.whole(&name)?;
        if <[u8; 32]>::from(Sha256::digest(&bytes)) != root.index_hash {
            return Err(ObjectsError::damaged(&name, "is not that of its root"));
        }
        let index = Index::decode(&bytes, volume.uuid, id).map_err(|error| error.of(&name))?;
        Ok((root, index))
    }
}
