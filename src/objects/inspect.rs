//! What a volume consists of: its state, the check of all objects, and the search for objects to
//! which nothing refers.

use std::collections::BTreeSet;

use luksmith_formats::objects::checkpoint::{Index, KeptSnapshot, LeafPlace, SegmentUse};
use luksmith_formats::objects::frame::{self, Kind};
use luksmith_formats::objects::name::Name;
use luksmith_formats::objects::segment::{self, Header, Record};
use luksmith_formats::objects::volume::FlushMode;
use luksmith_formats::objects::{BLOCK, Position, RootId, name};

use super::ObjectsError;
use super::buffer::{BLOCK_LEN, sums};
use super::client::Of as _;
use super::log::{Log, read_leaf};

/// What a volume consists of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Which volume it is.
    pub uuid: [u8; 16],
    /// The size in bytes.
    pub size: u64,
    /// The most bytes of data in an object.
    pub object_size: u32,
    /// The last segment of the log.
    pub position: Position,
    /// The newest checkpoint.
    pub checkpoint: Option<RootId>,
    /// How many segments there are, without those that only a snapshot needs.
    pub segments: u64,
    /// Their data in bytes.
    pub stored: u64,
    /// How much of that is in the volume.
    pub live: u64,
    /// The snapshots, in the order of their names.
    pub snapshots: Vec<KeptSnapshot>,
    /// Whether flushes are done when a file on the writer's host has the data.
    pub journal: bool,
    /// Whether it may be written in a store that overwrites objects.
    pub unfenced: bool,
}

/// What a check of all objects has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// How many segments.
    pub segments: u64,
    /// How many bytes of data.
    pub bytes: u64,
    /// How many leaves of the map, of all snapshots.
    pub leaves: u64,
}

/// What a search for garbage has deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// How many objects.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// A writer that has not closed the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Writer {
    /// Its host.
    pub host: String,
    /// When it opened the volume, in seconds since 1970.
    pub time: u64,
    /// Its number: each writer has a higher one than those before it.
    pub epoch: u32,
}

impl Log {
    /// The writer that has not closed the volume.
    pub(super) fn writer(&self) -> Result<Option<Writer>, ObjectsError> {
        let Some(epoch) = self.unclosed else {
            return Ok(None);
        };
        let (claim, _) = self.client.claim(&self.volume, epoch)?;
        let (host, time) = (claim.host, claim.time);
        Ok(Some(Writer { host, time, epoch }))
    }

    pub(super) fn status(&self) -> Status {
        let state = self.lock();
        let used = || state.map.segments.values();
        let sum = |of: fn(&SegmentUse) -> u16| used().map(|used| u64::from(of(used)) * BLOCK).sum();
        Status {
            uuid: self.volume.uuid,
            size: state.size,
            object_size: self.volume.object_size,
            position: match self.epoch {
                0 => state.base,
                epoch => Position {
                    epoch,
                    sequence: state.next - 1,
                },
            },
            checkpoint: state.root,
            segments: used().filter(|used| used.live > 0).count() as u64,
            stored: sum(|used| used.blocks),
            live: sum(|used| used.live),
            snapshots: state.snapshots.clone(),
            journal: self.volume.flush_mode == FlushMode::Journal,
            unfenced: self.volume.unfenced,
        }
    }

    /// Reads every segment and every leaf that the volume or a snapshot needs, and compares the
    /// checksums, the hashes of the headers, and the places in the map.
    pub(super) fn verify(&self) -> Result<Verified, ObjectsError> {
        let (snapshots, mut now, places) = {
            let state = self.lock();
            let all: Vec<_> = state
                .map
                .segments
                .iter()
                .map(|(at, used)| (*at, *used))
                .collect();
            (state.snapshots.clone(), all, state.map.places().clone())
        };
        let mut found = Verified::default();
        let mut all = now.clone();
        all.retain(|(_, used)| used.live > 0);
        for snapshot in &snapshots {
            let (_, index) = self.client.root_and_index(&self.volume, snapshot.root)?;
            self.verify_leaves(index.leaves.iter().copied(), &index, &mut found)?;
            all.extend(index.segments.into_iter().filter(|(_, used)| used.live > 0));
        }
        now.sort_unstable_by_key(|(at, _)| *at);
        if let Some(root) = self.lock().root {
            // The leaves of the newest checkpoint; newer changes are in the log, which was read.
            let (_, index) = self.client.root_and_index(&self.volume, root)?;
            self.verify_leaves(places.into_iter(), &index, &mut found)?;
        }
        all.sort_unstable_by_key(|(at, _)| *at);
        all.dedup_by_key(|(at, _)| *at);
        let mut before: Option<(Position, [u8; 32])> = None;
        for some in all.chunks(4) {
            let names: Vec<String> = some.iter().map(|(at, _)| name::segment(*at)).collect();
            let read = self
                .client
                .at_once(names, |name| self.client.whole(&name))?;
            for ((at, _), bytes) in some.iter().zip(read) {
                let hash = self.verify_segment(*at, &bytes, before)?;
                before = Some((*at, hash));
                found.segments += 1;
                found.bytes += bytes.len() as u64;
            }
        }
        Ok(found)
    }

    fn verify_leaves(
        &self,
        leaves: impl Iterator<Item = (u32, LeafPlace)>,
        index: &Index,
        found: &mut Verified,
    ) -> Result<(), ObjectsError> {
        for (number, place) in leaves {
            for extent in read_leaf(&self.client, &self.volume, number, place)? {
                let at = index
                    .segments
                    .binary_search_by_key(&extent.segment, |(at, _)| *at);
                let blocks = at.map_or(0, |at| index.segments[at].1.blocks);
                if u64::from(extent.index) + u64::from(extent.count) > u64::from(blocks) {
                    let name = name::pack(place.root, place.pack);
                    return Err(ObjectsError::damaged(
                        &name,
                        "names a block that is not there",
                    ));
                }
            }
            found.leaves += 1;
        }
        Ok(())
    }

    /// Compares the checksums of a segment, and returns the hash of its header.
    fn verify_segment(
        &self,
        at: Position,
        bytes: &[u8],
        before: Option<(Position, [u8; 32])>,
    ) -> Result<[u8; 32], ObjectsError> {
        let name = name::segment(at);
        let (_, length) = frame::prologue(bytes).map_err(|error| error.of(&name))?;
        let header = Header::decode(bytes, self.volume.uuid, at);
        let header = header.map_err(|error| error.of(&name))?;
        let previous = match before {
            _ if at.sequence == 1 => Some(self.client.claim(&self.volume, at.epoch)?.1),
            Some((before, hash))
                if before.epoch == at.epoch && before.sequence + 1 == at.sequence =>
            {
                Some(hash)
            }
            _ => None,
        };
        if previous.is_some_and(|previous| previous != header.previous) {
            return Err(ObjectsError::damaged(
                &name,
                "does not follow the segment before it",
            ));
        }
        let data = bytes.get(length..).unwrap_or_default();
        let wanted: Vec<_> = header
            .records
            .iter()
            .filter_map(|record| match record {
                Record::Data { sums, .. } => Some(sums.as_slice()),
                _ => None,
            })
            .flatten()
            .copied()
            .collect();
        if data.len() != wanted.len() * BLOCK_LEN {
            return Err(ObjectsError::damaged(
                &name,
                "has another length than its header says",
            ));
        }
        if sums(data) != wanted {
            return Err(ObjectsError::damaged(
                &name,
                "has a block with a wrong checksum",
            ));
        }
        Ok(segment::hash(bytes.get(..length).unwrap_or_default()))
    }

    /// Deletes objects to which nothing refers: those that a writer left that was killed or fenced.
    pub(super) fn sweep(&self) -> Result<Swept, ObjectsError> {
        let kept = self.lock_kept();
        let listed = self.client.list("")?;
        let mut gone = Vec::new();
        let (packs, root, segments) = {
            let state = self.lock();
            let places = state.map.places().values();
            let packs: BTreeSet<_> = places.map(|at| (at.root, at.pack)).collect();
            let segments: BTreeSet<Position> = state.map.segments.keys().copied().collect();
            (packs, state.root, segments)
        };
        for (name, size) in listed {
            let is_needed = match Name::parse(&name) {
                None | Some(Name::Volume | Name::Claim(_) | Name::Root(_)) => true,
                Some(Name::Segment(at)) => {
                    let known = segments.contains(&at) || kept.segments.contains(&at);
                    known || at.epoch >= self.epoch || self.is_fence(&name)?
                }
                // A later writer may have taken the volume over, and need its own.
                Some(Name::Index(id) | Name::Pack(id, _)) if id.epoch > self.epoch => true,
                Some(Name::Index(id)) => Some(id) == root || kept.roots.contains(&id),
                Some(Name::Pack(id, pack)) => {
                    packs.contains(&(id, pack)) || kept.packs.contains(&(id, pack))
                }
                Some(_) => true,
            };
            if !is_needed {
                gone.push((name, size));
            }
        }
        let names: Vec<String> = gone.iter().map(|(name, _)| name.clone()).collect();
        self.client
            .at_once(names, |name| self.client.remove(&name))?;
        Ok(Swept {
            objects: gone.len() as u64,
            bytes: gone.iter().map(|(_, size)| size).sum(),
        })
    }

    /// Whether an object is a fence, or is not there any more.
    fn is_fence(&self, name: &str) -> Result<bool, ObjectsError> {
        let Some(bytes) = self.client.read(name, 0..frame::PROLOGUE as u64)? else {
            return Ok(true);
        };
        let (kind, _) = frame::prologue(&bytes).map_err(|error| error.of(name))?;
        Ok(kind == Kind::Fence)
    }
}
