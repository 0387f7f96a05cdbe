//! The collection of garbage: live blocks of segments that are mostly dead move to new segments.
//!
//! A moved block is written like any other: it gets its place in the log under the lock under which
//! its old place is compared with the map. So the order of the log is that of the changes, and a
//! block that was written meanwhile is not moved. Segments of moved blocks have no others: what
//! changes rarely is apart from what changes often.

use std::collections::BTreeSet;
use std::sync::MutexGuard;

use luksmith_formats::objects::checkpoint::SegmentUse;
use luksmith_formats::objects::leaf::BLOCKS;
use luksmith_formats::objects::segment::{Header, Record, Sum};
use luksmith_formats::objects::{Position, name};

use super::ObjectsError;
use super::buffer::{BLOCK_LEN, sums};
use super::client::Of as _;
use super::log::Log;
use super::map::{Blocks, Place};
use super::state::State;

/// The part of the stored blocks that may be dead, in percent.
const MOST_DEAD: u64 = 30;

/// How many segments there may be beside twice those that are needed, before small ones are joined.
const SPARE_SEGMENTS: u64 = 4096;

/// The most leaves of the map that the blocks of a new segment are in: all of them have to be in
/// memory.
const MOST_LEAVES: usize = 128;

/// How many segments are read at the same time.
const AT_ONCE: usize = 4;

/// What is stored, in blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) blocks: u64,
    pub(super) live: u64,
    pub(super) segments: u64,
}

/// A live block of a segment that is given up.
struct Moved {
    block: u64,
    from: Place,
    bytes: Vec<u8>,
    sum: Sum,
}

impl Log {
    /// Collects garbage until little is left: moves blocks, and makes checkpoints, which delete.
    pub(super) fn collect(&self) -> Result<(), ObjectsError> {
        let mut moved_any = false;
        loop {
            let victims = self.victims();
            if victims.is_empty() || self.lock().stop_keeping {
                break;
            }
            let mut blocks = Vec::new();
            for some in victims.chunks(AT_ONCE) {
                let names: Vec<String> = some.iter().map(|(at, _)| name::segment(*at)).collect();
                let read = self
                    .client
                    .at_once(names, |name| self.client.read(&name, 0..u64::MAX))?;
                for ((at, used), bytes) in some.iter().zip(read) {
                    let name = name::segment(*at);
                    let bytes = match bytes {
                        Some(bytes) => bytes,
                        // Its last live blocks were moved or overwritten meanwhile.
                        None if self.is_dead(*at) => continue,
                        None => self.client.whole(&name)?,
                    };
                    blocks.extend(self.blocks_of(*at, *used, &bytes)?);
                }
            }
            blocks.sort_unstable_by_key(|moved: &Moved| moved.block);
            self.move_blocks(blocks)?;
            moved_any = true;
            self.checkpoint()?;
        }
        match moved_any {
            true => Ok(()),
            // What is dead already only needs a checkpoint.
            false if self.has_dead() => self.checkpoint(),
            false => Ok(()),
        }
    }

    /// Whether a segment has no live block, or is deleted.
    fn is_dead(&self, at: Position) -> bool {
        let state = self.lock();
        let used = state.map.segments.get(&at);
        used.is_none_or(|used| used.live == 0)
    }

    fn has_dead(&self) -> bool {
        self.lock().map.segments.values().any(|used| used.live == 0)
    }

    /// Which segments are worth it: those with few live blocks that are old. Together they have at
    /// most a few new segments' blocks.
    fn victims(&self) -> Vec<(Position, SegmentUse)> {
        let kept = self.lock_kept();
        let state = self.lock();
        let mut stored = Stored::default();
        let mut candidates = Vec::new();
        let all = state.map.segments.len();
        for (rank, (at, used)) in state.map.segments.iter().enumerate() {
            let is_stored = at.epoch != self.epoch || at.sequence <= state.uploaded_to;
            if !is_stored || kept.segments.contains(at) || used.live == 0 {
                continue;
            }
            stored.segments += 1;
            stored.blocks += u64::from(used.blocks);
            stored.live += u64::from(used.live);
            candidates.push(((all - rank) as u64, *at, *used));
        }
        drop(state);
        drop(kept);
        let full = u64::from(self.most_blocks());
        let is_sparse = (stored.blocks - stored.live) * 100 > stored.blocks * MOST_DEAD;
        let is_small = stored.segments > SPARE_SEGMENTS + 2 * (stored.live / full);
        if is_sparse {
            candidates.retain(|(_, _, used)| used.live < used.blocks);
            // Benefit for cost: the freed part and its age, for reading and writing the live part.
            candidates.sort_unstable_by_key(|(age, _, used)| {
                let (live, blocks) = (u64::from(used.live), u64::from(used.blocks));
                std::cmp::Reverse((blocks - live) * age * 1024 / (blocks + live))
            });
        } else if is_small {
            candidates.sort_unstable_by_key(|(_, _, used)| used.blocks);
        } else {
            return Vec::new();
        }
        let mut live = 0;
        let enough = candidates.into_iter().take_while(|(_, _, used)| {
            live += u64::from(used.live);
            live <= 4 * full || live == u64::from(used.live)
        });
        enough.map(|(_, at, used)| (at, used)).collect()
    }

    /// The blocks of a segment to which the map refers, with their checksums compared.
    fn blocks_of(
        &self,
        at: Position,
        used: SegmentUse,
        bytes: &[u8],
    ) -> Result<Vec<Moved>, ObjectsError> {
        let name = name::segment(at);
        let header = Header::decode(bytes, self.volume.uuid, at);
        let header = header.map_err(|error| error.of(&name))?;
        let data = bytes.get(used.header as usize..).unwrap_or_default();
        let mut found = Vec::new();
        let mut index = 0;
        for record in header.records {
            let Record::Data { block, sums } = record else {
                continue;
            };
            for (number, sum) in (block..).zip(sums) {
                let from = Place { segment: at, index };
                let start = index as usize * BLOCK_LEN;
                index += 1;
                let state = self.with_leaf(blocks_at(number).leaf)?;
                if state.map.find(blocks_at(number)).0 != Some(from) {
                    continue;
                }
                drop(state);
                let Some(bytes) = data.get(start..start + BLOCK_LEN) else {
                    return Err(ObjectsError::damaged(&name, "ends too early"));
                };
                if sums_of(bytes) != sum {
                    return Err(ObjectsError::damaged(
                        &name,
                        "has a block with a wrong checksum",
                    ));
                }
                found.push(Moved {
                    block: number,
                    from,
                    bytes: bytes.to_vec(),
                    sum,
                });
            }
        }
        Ok(found)
    }

    /// Writes the blocks to new segments, unless they have changed meanwhile.
    fn move_blocks(&self, blocks: Vec<Moved>) -> Result<(), ObjectsError> {
        let mut rest = blocks.as_slice();
        while !rest.is_empty() {
            let mut leaves = BTreeSet::new();
            let fits = rest
                .iter()
                .take(self.most_blocks() as usize)
                .take_while(|moved| {
                    leaves.insert(blocks_at(moved.block).leaf);
                    leaves.len() <= MOST_LEAVES
                });
            let (some, after) = rest.split_at(fits.count().max(1));
            let leaves: BTreeSet<u32> = some.iter().map(|it| blocks_at(it.block).leaf).collect();
            rest = after;
            let mut state = self.with_leaves(&leaves)?;
            self.seal(&mut state);
            for moved in some {
                let at = blocks_at(moved.block);
                if state.map.find(at).0 == Some(moved.from) {
                    self.append(&mut state, at, moved.block, &moved.bytes, moved.sum);
                }
            }
            self.seal(&mut state);
        }
        Ok(())
    }

    /// The state with all of these leaves, when few segments wait for their upload.
    fn with_leaves(&self, leaves: &BTreeSet<u32>) -> Result<MutexGuard<'_, State>, ObjectsError> {
        loop {
            drop(self.with_few_sealed()?);
            for leaf in leaves {
                drop(self.with_leaf(*leaf)?);
            }
            let mut state = self.lock();
            state.check()?;
            if leaves.iter().all(|leaf| state.map.is_loaded(*leaf).is_ok()) {
                return Ok(state);
            }
        }
    }
}

fn sums_of(block: &[u8]) -> Sum {
    sums(block).first().copied().unwrap_or_default()
}

/// A block in its leaf.
fn blocks_at(block: u64) -> Blocks {
    let of_leaf = u64::from(BLOCKS);
    Blocks {
        // A volume has fewer leaves than 2^32.
        leaf: u32::try_from(block / of_leaf).unwrap_or(u32::MAX),
        start: u32::try_from(block % of_leaf).unwrap_or_default(),
        count: 1,
    }
}
