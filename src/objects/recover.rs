//! Finds the state of a volume in the store: the newest checkpoint, and the log after it.
//!
//! Everything is found by its name, never by a list, which may be old. A writer fences what it has
//! read to the end: it creates an object in place of the next segment, or the next root. If that is
//! there, the end was not the end.

use std::collections::BTreeMap;

use luksmith_formats::objects::checkpoint::{Index, KeptSnapshot, Root, SegmentUse};
use luksmith_formats::objects::claim::{Claim, Fence};
use luksmith_formats::objects::frame::{self, Kind};
use luksmith_formats::objects::segment::{self, Header, Record};
use luksmith_formats::objects::volume::Volume;
use luksmith_formats::objects::{BLOCK, Position, RootId, name};

use super::ObjectsError;
use super::client::{Client, Of as _, Owner};
use super::log::read_leaf;
use super::map::{Map, Place, by_leaf};

/// A volume as it is found.
pub(super) struct Found<'a> {
    client: &'a Client,
    volume: &'a Volume,
    pub(super) map: Map,
    pub(super) size: u64,
    /// The last segment that the map includes.
    pub(super) position: Position,
    /// The hash of its header, or of the claim of the epoch.
    pub(super) hash: [u8; 32],
    pub(super) root: Option<RootId>,
    pub(super) snapshots: Vec<KeptSnapshot>,
    /// Whether the last writer has ended its epoch itself.
    pub(super) is_closed: bool,
    pub(super) bytes: u64,
    pub(super) objects: u64,
    /// The last segment of each epoch whose log was read.
    pub(super) ends: BTreeMap<u32, u64>,
}

/// Who puts a fence at the end.
#[derive(Clone, Copy)]
pub(super) struct Fencer {
    pub(super) epoch: u32,
    pub(super) nonce: [u8; 16],
}

impl Client {
    /// Reads what never changes in a volume.
    pub(super) fn volume(&self) -> Result<Option<Volume>, ObjectsError> {
        let Some(bytes) = self.read(name::VOLUME, 0..u64::MAX)? else {
            return Ok(None);
        };
        let volume = Volume::decode(&bytes);
        volume.map(Some).map_err(|error| error.of(name::VOLUME))
    }

    /// A claim that is there, with the hash of its object.
    pub(super) fn claim(
        &self,
        volume: &Volume,
        epoch: u32,
    ) -> Result<(Claim, [u8; 32]), ObjectsError> {
        let name = name::claim(epoch);
        let bytes = self.whole(&name)?;
        let claim = Claim::decode(&bytes, volume.uuid, epoch).map_err(|error| error.of(&name))?;
        Ok((claim, segment::hash(&bytes)))
    }

    /// The last epoch that was claimed; 0 if there is none.
    pub(super) fn last_epoch(&self) -> Result<u32, ObjectsError> {
        self.last(0, name::claim)
    }

    /// The highest number of which there is an object, where there is one of each number from 1 to
    /// it, and of the number `known`.
    fn last(&self, known: u32, name: impl Fn(u32) -> String) -> Result<u32, ObjectsError> {
        let there = |number: u32| Ok::<_, ObjectsError>(self.read(&name(number), 0..1)?.is_some());
        let (mut low, mut step) = (known, 1);
        let mut high = loop {
            let Some(next) = low.checked_add(step) else {
                break u32::MAX;
            };
            match there(next)? {
                true => (low, step) = (next, step.saturating_mul(2)),
                false => break next,
            }
        };
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match there(middle)? {
                true => low = middle,
                false => high = middle,
            }
        }
        Ok(low)
    }

    /// The number of the last root of an epoch; 0 if it has none. With a fencer, there will be none
    /// after it.
    fn last_root(
        &self,
        volume: &Volume,
        epoch: u32,
        known: u32,
        fencer: Option<Fencer>,
    ) -> Result<u32, ObjectsError> {
        let at = |number| name::root(RootId { epoch, number });
        let mut last = self.last(known, at)?;
        loop {
            let kind = match last {
                0 => None,
                _ => Some(self.kind(&at(last))?),
            };
            if kind == Some(Kind::Fence) {
                return Ok(last - 1);
            }
            let Some(fencer) = fencer else {
                return Ok(last);
            };
            let place = (epoch, u64::from(last) + 1);
            let fence = Fence::new(volume.uuid, place, fencer.epoch, fencer.nonce);
            match self.create(&at(last + 1), &[&fence.encode()])? {
                Owner::Own => return Ok(last),
                Owner::Other(_) => last += 1,
            }
        }
    }

    fn kind(&self, name: &str) -> Result<Kind, ObjectsError> {
        let bytes = self.there(name, 0..frame::PROLOGUE as u64)?;
        let (kind, _) = frame::prologue(&bytes).map_err(|error| error.of(name))?;
        Ok(kind)
    }

    /// The newest checkpoint in the epochs up to this one. With a fencer, it stays the newest.
    pub(super) fn newest_root(
        &self,
        volume: &Volume,
        epoch: u32,
        fencer: Option<Fencer>,
    ) -> Result<Option<RootId>, ObjectsError> {
        let mut base = None;
        let mut at = epoch;
        let mut newest = None;
        while at > 0 {
            let known = match base {
                Some(RootId { epoch, number }) if epoch == at => number,
                _ => 0,
            };
            let number = self.last_root(volume, at, known, fencer)?;
            if number > 0 && newest.is_none() {
                newest = Some(RootId { epoch: at, number });
            }
            if newest.is_some() {
                return Ok(newest);
            }
            if base.is_none() {
                base = self.claim(volume, at)?.0.base;
            }
            at -= 1;
        }
        Ok(None)
    }
}

impl<'a> Found<'a> {
    /// The state of a checkpoint, or of a new volume.
    pub(super) fn at(
        client: &'a Client,
        volume: &'a Volume,
        root: Option<RootId>,
        map_memory: usize,
    ) -> Result<Self, ObjectsError> {
        let (root, index) = match root {
            Some(id) => {
                let (root, index) = client.root_and_index(volume, id)?;
                (Some(root), index)
            }
            None => (None, Index::default()),
        };
        let start = Position {
            epoch: 1,
            sequence: 0,
        };
        let of = |field: fn(&Root) -> [u8; 32]| root.as_ref().map(field);
        Ok(Self {
            client,
            volume,
            map: Map::new(&index, map_memory),
            size: root.as_ref().map_or(volume.size, |root| root.size),
            position: root.as_ref().map_or(start, |root| root.position),
            hash: of(|root| root.hash).unwrap_or_default(),
            root: root.as_ref().map(|root| root.id),
            snapshots: index.snapshots,
            is_closed: false,
            bytes: 0,
            objects: 0,
            ends: BTreeMap::new(),
        })
    }

    /// Applies the log up to the end of this epoch. With a fencer, nothing is added to it after.
    pub(super) fn replay(&mut self, to: u32, fencer: Option<Fencer>) -> Result<(), ObjectsError> {
        if to == 0 {
            self.is_closed = true;
            return Ok(());
        }
        if self.position.sequence == 0 {
            self.hash = self.client.claim(self.volume, self.position.epoch)?.1;
        }
        loop {
            self.replay_epoch(fencer)?;
            self.ends
                .insert(self.position.epoch, self.position.sequence);
            if self.position.epoch >= to {
                return Ok(());
            }
            self.position = Position {
                epoch: self.position.epoch + 1,
                sequence: 0,
            };
            self.hash = self.client.claim(self.volume, self.position.epoch)?.1;
        }
    }

    fn replay_epoch(&mut self, fencer: Option<Fencer>) -> Result<(), ObjectsError> {
        let mut ahead = 1;
        loop {
            let places: Vec<Position> = (1..=ahead).map(|step| self.after(step)).collect();
            let names: Vec<String> = places.iter().map(|at| name::segment(*at)).collect();
            ahead = (ahead * 2).min(self.client.connections as u64).max(1);
            let frames = self
                .client
                .at_once(names.iter().collect(), |name| self.client.frame(name))?;
            for (at, (name, mut bytes)) in places.iter().zip(names.iter().zip(frames)) {
                if bytes.is_none()
                    && let Some(by) = fencer
                {
                    let place = (at.epoch, at.sequence);
                    let fence = Fence::new(self.volume.uuid, place, by.epoch, by.nonce);
                    match self.client.create(name, &[&fence.encode()])? {
                        Owner::Own => return Ok(()),
                        Owner::Other(found) => bytes = Some(found),
                    }
                }
                let Some(bytes) = bytes else {
                    self.is_closed = false;
                    return Ok(());
                };
                if self.is_fence(*at, name, &bytes)? {
                    return Ok(());
                }
                self.apply(*at, name, &bytes)?;
            }
        }
    }

    fn after(&self, step: u64) -> Position {
        Position {
            epoch: self.position.epoch,
            sequence: self.position.sequence + step,
        }
    }

    fn is_fence(&mut self, at: Position, name: &str, bytes: &[u8]) -> Result<bool, ObjectsError> {
        let (kind, _) = frame::prologue(bytes).map_err(|error| error.of(name))?;
        if kind != Kind::Fence {
            return Ok(false);
        }
        let fence = Fence::decode(bytes, self.volume.uuid, at.epoch, at.sequence);
        self.is_closed = fence.map_err(|error| error.of(name))?.is_orderly();
        Ok(true)
    }

    fn apply(&mut self, at: Position, name: &str, bytes: &[u8]) -> Result<(), ObjectsError> {
        let header = Header::decode(bytes, self.volume.uuid, at);
        let header = header.map_err(|error| error.of(name))?;
        if header.previous != self.hash {
            return Err(ObjectsError::damaged(
                name,
                "does not follow the segment before it",
            ));
        }
        let blocks = u16::try_from(header.blocks());
        let (Ok(blocks), Ok(length)) = (blocks, u32::try_from(bytes.len())) else {
            return Err(ObjectsError::damaged(name, "has too many blocks"));
        };
        let mut used = SegmentUse::new(length, blocks);
        used.live = 0;
        self.map.segments.insert(at, used);
        let mut index = 0;
        for record in header.records {
            match record {
                Record::Data { block, sums } => {
                    let count = sums.len() as u64;
                    self.set(block..block + count, Some(Place { segment: at, index }))?;
                    index += u32::try_from(count).unwrap_or(u32::MAX);
                }
                Record::Hole { block, count } => self.set(block..block + count, None)?,
                Record::Resize { size } => self.size = size,
                _ => return Err(ObjectsError::damaged(name, "has a record of another kind")),
            }
        }
        self.position = at;
        self.hash = segment::hash(bytes);
        self.bytes += u64::from(blocks) * BLOCK;
        self.objects += 1;
        Ok(())
    }

    fn set(&mut self, blocks: std::ops::Range<u64>, to: Option<Place>) -> Result<(), ObjectsError> {
        let mut index = to.map_or(0, |place| place.index);
        for some in by_leaf(blocks) {
            let place = to.map(|place| Place { index, ..place });
            index += some.count;
            if place.is_none() && self.map.is_empty(some.leaf) {
                continue;
            }
            if let Err(from) = self.map.is_loaded(some.leaf) {
                let extents = match from {
                    Some(from) => read_leaf(self.client, self.volume, some.leaf, from)?,
                    None => Vec::new(),
                };
                self.map.insert(some.leaf, from, extents);
            }
            self.map.set(some, place);
        }
        Ok(())
    }
}
