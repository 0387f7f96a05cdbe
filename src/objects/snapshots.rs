//! Snapshots: checkpoints that are kept.

use luksmith_formats::objects::checkpoint::KeptSnapshot;
use luksmith_formats::objects::{RootId, name};

use super::ObjectsError;
use super::log::Log;
use super::open::now;

impl Log {
    /// Makes a snapshot of the volume as it is now.
    pub(super) fn make_snapshot(&self, snapshot: &str) -> Result<(), ObjectsError> {
        if !name::is_snapshot(snapshot) {
            return Err(ObjectsError::SnapshotName);
        }
        let mut kept = self.lock_kept();
        let root = kept.next(self.epoch);
        self.checkpoint_with(&mut kept, |state| {
            let place = state
                .snapshots
                .binary_search_by(|kept| kept.name.as_str().cmp(snapshot));
            let Err(at) = place else {
                return Err(ObjectsError::SnapshotExists);
            };
            let entry = KeptSnapshot::new(snapshot.to_owned(), root, now());
            state.snapshots.insert(at, entry);
            Ok(())
        })
    }

    /// Deletes a snapshot, and what only it refers to.
    pub(super) fn delete_snapshot(&self, snapshot: &str) -> Result<(), ObjectsError> {
        let mut kept = self.lock_kept();
        self.checkpoint_with(&mut kept, |state| {
            let before = state.snapshots.len();
            state.snapshots.retain(|kept| kept.name != snapshot);
            match state.snapshots.len() < before {
                true => Ok(()),
                false => Err(ObjectsError::NoSnapshot),
            }
        })
    }

    /// Gives the volume the contents and the size of a snapshot.
    pub(super) fn roll_back(&self, snapshot: &str) -> Result<(), ObjectsError> {
        let mut kept = self.lock_kept();
        let root = self.root_of(snapshot)?;
        let (root, index) = self.client.root_and_index(&self.volume, root)?;
        self.checkpoint_with(&mut kept, |state| {
            state.map.replace(&index.leaves);
            for used in state.map.segments.values_mut() {
                used.live = 0;
            }
            state.map.segments.extend(index.segments);
            state.size = root.size;
            Ok(())
        })
    }

    fn root_of(&self, snapshot: &str) -> Result<RootId, ObjectsError> {
        let state = self.lock();
        let kept = state.snapshots.iter().find(|kept| kept.name == snapshot);
        kept.map(|kept| kept.root).ok_or(ObjectsError::NoSnapshot)
    }
}
