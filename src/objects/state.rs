//! What changes in an open volume, under one lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use luksmith_formats::objects::checkpoint::KeptSnapshot;
use luksmith_formats::objects::{Position, RootId};

use super::buffer::{Buffer, Sealed};
use super::error::{Failure, ObjectsError};
use super::map::Map;

/// What changes in an open volume.
pub(super) struct State {
    pub(super) map: Map,
    pub(super) size: u64,
    pub(super) open: Buffer,
    /// The sequence number of the segment that is being filled.
    pub(super) next: u64,
    /// The hash of the header of the segment before it.
    pub(super) previous: [u8; 32],
    /// What the map includes, of earlier epochs too.
    pub(super) base: Position,
    pub(super) sealed: BTreeMap<u64, Arc<Sealed>>,
    pub(super) ready: VecDeque<Arc<Sealed>>,
    pub(super) uploaded: BTreeSet<u64>,
    /// The store has all segments up to this one.
    pub(super) uploaded_to: u64,
    /// A flush waits for the segment that is being filled.
    pub(super) wanted: bool,
    /// Since when that has something that is in the journal.
    pub(super) open_since: Option<Instant>,
    /// What is written is in the journal already.
    pub(super) is_replaying: bool,
    /// The threads that upload end when nothing is left.
    pub(super) stop: bool,
    /// The thread that makes checkpoints ends.
    pub(super) stop_keeping: bool,
    pub(super) failure: Option<Failure>,
    pub(super) bytes_since: u64,
    pub(super) objects_since: u64,
    pub(super) checkpoint_wanted: bool,
    pub(super) root: Option<RootId>,
    pub(super) snapshots: Vec<KeptSnapshot>,
}

impl State {
    pub(super) fn new(map: Map, size: u64, base: Position, hash: [u8; 32]) -> Self {
        Self {
            map,
            size,
            open: Buffer::new(),
            next: 1,
            previous: hash,
            base,
            sealed: BTreeMap::new(),
            ready: VecDeque::new(),
            uploaded: BTreeSet::new(),
            uploaded_to: 0,
            wanted: false,
            open_since: None,
            is_replaying: false,
            stop: false,
            stop_keeping: false,
            failure: None,
            bytes_since: 0,
            objects_since: 0,
            checkpoint_wanted: false,
            root: None,
            snapshots: Vec::new(),
        }
    }

    pub(super) fn check(&self) -> Result<(), ObjectsError> {
        match &self.failure {
            Some(failure) => Err(failure.clone().into()),
            None => Ok(()),
        }
    }
}
