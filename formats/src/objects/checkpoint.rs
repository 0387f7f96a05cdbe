//! A checkpoint: the map at one position of the log. The root is created last.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::claim::{expect, of_volume, text, write_text};
use super::frame::{self, Kind};
use super::leaf::{self, BLOCKS};
use super::volume::LARGEST;
use super::{Position, RootId, Uuid};
use crate::codec::{Reader, Writer};
use crate::error::FormatError;

/// The object `m/EPOCH/NUMBER/root`. It is never deleted, so that the newest one is found by its
/// name, and a fence after it ends the checkpoints of the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Root {
    /// Which volume it is.
    pub uuid: Uuid,
    /// Which checkpoint it is.
    pub id: RootId,
    /// The nonce of the writer.
    pub nonce: [u8; 16],
    /// The last segment that the map includes.
    pub position: Position,
    /// The hash of the header of that segment, or of the claim if it is the start of an epoch.
    pub hash: [u8; 32],
    /// The size of the volume in bytes.
    pub size: u64,
    /// The length of the index in bytes.
    pub index_length: u32,
    /// SHA-256 of the index.
    pub index_hash: [u8; 32],
}

impl Root {
    /// A root of an empty map at the start of an epoch.
    #[must_use]
    pub fn new(uuid: Uuid, id: RootId, nonce: [u8; 16]) -> Self {
        Self {
            uuid,
            id,
            nonce,
            position: Position::default(),
            hash: [0; 32],
            size: 0,
            index_length: 0,
            index_hash: [0; 32],
        }
    }

    /// Reads the root of this checkpoint of this volume.
    ///
    /// # Errors
    /// [`FormatError`] if it is malformed.
    pub fn decode(bytes: &[u8], uuid: Uuid, id: RootId) -> Result<Self, FormatError> {
        let mut reader = frame::open(bytes, Kind::Root)?;
        of_volume(&mut reader, uuid)?;
        expect(&mut reader, "epoch", id.epoch.into(), Reader::u32)?;
        expect(&mut reader, "number", id.number.into(), Reader::u32)?;
        let root = Self {
            uuid,
            id,
            nonce: reader.array("nonce")?,
            position: Position::read(&mut reader, "position")?,
            hash: reader.array("hash")?,
            size: reader.u64("size")?,
            index_length: reader.u32("index length")?,
            index_hash: reader.array("index hash")?,
        };
        if root.size > LARGEST {
            return Err(FormatError::over_limit(
                "size",
                0,
                format!("is {}", root.size),
            ));
        }
        frame::finish(reader)?;
        Ok(root)
    }

    /// The bytes of the object.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(&self.uuid);
        writer.u32(self.id.epoch).u32(self.id.number);
        writer.bytes(&self.nonce);
        self.position.write(&mut writer);
        writer.bytes(&self.hash).u64(self.size);
        writer.u32(self.index_length).bytes(&self.index_hash);
        frame::seal(Kind::Root, &writer.finish())
    }
}

/// Where a leaf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeafPlace {
    /// The checkpoint that has it.
    pub root: RootId,
    /// The pack of this checkpoint.
    pub pack: u16,
    /// Its first byte in the pack.
    pub offset: u32,
    /// How many extents it has.
    pub extents: u16,
}

impl LeafPlace {
    /// A place.
    #[must_use]
    pub fn new(root: RootId, pack: u16, offset: u32, extents: u16) -> Self {
        Self {
            root,
            pack,
            offset,
            extents,
        }
    }

    /// Its bytes in the pack.
    #[must_use]
    pub fn range(&self) -> core::ops::Range<u64> {
        let length = leaf::length(self.extents.into()) as u64;
        let start = u64::from(self.offset);
        start..start.saturating_add(length)
    }
}

/// What is known of a segment that is not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentUse {
    /// The length of its header in bytes.
    pub header: u32,
    /// How many blocks of data it has.
    pub blocks: u16,
    /// How many of them the map refers to.
    pub live: u16,
}

impl SegmentUse {
    /// A segment of which all blocks are live.
    #[must_use]
    pub fn new(header: u32, blocks: u16) -> Self {
        let live = blocks;
        Self {
            header,
            blocks,
            live,
        }
    }
}

/// A snapshot: a checkpoint that is kept. Every later one names it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptSnapshot {
    /// Its name.
    pub name: String,
    /// The checkpoint that describes it.
    pub root: RootId,
    /// When it was made, in seconds since 1970.
    pub time: u64,
}

impl KeptSnapshot {
    /// A snapshot.
    #[must_use]
    pub fn new(name: String, root: RootId, time: u64) -> Self {
        Self { name, root, time }
    }
}

/// The object `m/EPOCH/NUMBER/index`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Index {
    /// The leaves that are not empty, in order.
    pub leaves: Vec<(u32, LeafPlace)>,
    /// The segments, in order. One without live blocks is not deleted yet.
    pub segments: Vec<(Position, SegmentUse)>,
    /// The snapshots, in the order of their names.
    pub snapshots: Vec<KeptSnapshot>,
}

impl Index {
    /// Reads the index of this checkpoint of this volume.
    ///
    /// # Errors
    /// [`FormatError`] if it is malformed.
    pub fn decode(bytes: &[u8], uuid: Uuid, id: RootId) -> Result<Self, FormatError> {
        let mut reader = frame::open(bytes, Kind::Index)?;
        of_volume(&mut reader, uuid)?;
        expect(&mut reader, "epoch", id.epoch.into(), Reader::u32)?;
        expect(&mut reader, "number", id.number.into(), Reader::u32)?;
        let mut index = Self::default();
        for _ in 0..reader.u32("leaves")? {
            let offset = reader.offset();
            let leaf = reader.u32("leaf")?;
            let in_order = index.leaves.last().is_none_or(|(last, _)| *last < leaf);
            let Some(root) = RootId::read(&mut reader, "leaf")?.filter(|_| in_order) else {
                return Err(FormatError::malformed(
                    "leaf",
                    offset,
                    "is out of order, or nowhere",
                ));
            };
            let place = LeafPlace {
                root,
                pack: reader.u16("pack")?,
                offset: reader.u32("offset")?,
                extents: reader.u16("extents")?,
            };
            if u32::from(place.extents) > BLOCKS {
                return Err(FormatError::malformed("extents", offset, "are too many"));
            }
            index.leaves.push((leaf, place));
        }
        for _ in 0..reader.u32("segments")? {
            let offset = reader.offset();
            let position = Position::read(&mut reader, "segment")?;
            let segment = SegmentUse {
                header: reader.u32("header")?,
                blocks: reader.u16("blocks")?,
                live: reader.u16("live")?,
            };
            let in_order = index
                .segments
                .last()
                .is_none_or(|(last, _)| *last < position);
            if !in_order || segment.live > segment.blocks {
                return Err(FormatError::malformed(
                    "segment",
                    offset,
                    "is out of order, or too full",
                ));
            }
            index.segments.push((position, segment));
        }
        for _ in 0..reader.u32("snapshots")? {
            let offset = reader.offset();
            let name = text(&mut reader, "name")?;
            let in_order = index.snapshots.last().is_none_or(|last| last.name < name);
            let Some(root) = RootId::read(&mut reader, "snapshot")?.filter(|_| in_order) else {
                return Err(FormatError::malformed(
                    "snapshot",
                    offset,
                    "is out of order",
                ));
            };
            let time = reader.u64("time")?;
            index.snapshots.push(KeptSnapshot { name, root, time });
        }
        frame::finish(reader)?;
        Ok(index)
    }

    /// The bytes of the object.
    #[must_use]
    pub fn encode(&self, uuid: Uuid, id: RootId) -> Vec<u8> {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let mut writer = Writer::default();
        writer.bytes(&uuid).u32(id.epoch).u32(id.number);
        writer.u32(count(self.leaves.len()));
        for (leaf, place) in &self.leaves {
            writer.u32(*leaf);
            RootId::write(Some(place.root), &mut writer);
            writer.u16(place.pack).u32(place.offset).u16(place.extents);
        }
        writer.u32(count(self.segments.len()));
        for (position, segment) in &self.segments {
            position.write(&mut writer);
            writer
                .u32(segment.header)
                .u16(segment.blocks)
                .u16(segment.live);
        }
        writer.u32(count(self.snapshots.len()));
        for snapshot in &self.snapshots {
            write_text(&snapshot.name, &mut writer);
            RootId::write(Some(snapshot.root), &mut writer);
            writer.u64(snapshot.time);
        }
        frame::seal(Kind::Index, &writer.finish())
    }
}
