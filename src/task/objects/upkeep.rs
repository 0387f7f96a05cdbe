//! The upkeep of a volume in an object store: its state, its garbage, its snapshots, a check of all
//! objects, and the end of a writer that was killed.

use super::present::{open_backend, options};
use super::volume;
use crate::location::Location;
use crate::objects::{
    ObjectsBackend, ObjectsError, ObjectsOptions, Requests, Status, Swept, Verified, Writer,
};
use crate::task::storage::Remote;
use crate::task::{Error, Kind};

/// A volume in an object store, and how it is reached.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    location: &'a Location,
    remote: Remote,
}

/// The state of a volume.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct State {
    /// What it consists of.
    pub status: Status,
    /// The writer that has not closed it.
    pub writer: Option<Writer>,
    /// The requests for that.
    pub requests: Requests,
}

/// What a collection of garbage did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Collected {
    /// The bytes of data that were stored before, without those that only a snapshot needs.
    pub stored_before: u64,
    /// What the volume consists of now.
    pub status: Status,
    /// The objects to which nothing referred.
    pub swept: Swept,
    /// The requests for that.
    pub requests: Requests,
}

/// What a check of all objects found. It found no damage.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Checked {
    /// What was read.
    pub verified: Verified,
    /// The requests for that.
    pub requests: Requests,
}

/// A change of the snapshots of a volume, or of the volume to a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotChange {
    /// A snapshot of the volume as it is.
    Make,
    /// The snapshot goes, and what only it needs.
    Delete,
    /// The volume gets the contents and the size of the snapshot.
    RollBack,
}

impl<'a> Place<'a> {
    /// The volume at a location.
    #[must_use]
    pub fn new(location: &'a Location, remote: Remote) -> Self {
        Self { location, remote }
    }

    /// The state of the volume, as a reader sees it.
    ///
    /// # Errors
    /// What the store answers.
    pub fn state(&self) -> Result<State, Error> {
        let volume = self.open(|options| options)?;
        Ok(State {
            status: volume.status(),
            writer: self.of(volume.writer())?,
            requests: volume.requests(),
        })
    }

    /// Moves live data out of objects that are mostly garbage, and deletes what is not needed.
    ///
    /// # Errors
    /// What the store answers; [`Kind::Busy`] if the volume is open.
    pub fn collect(&self) -> Result<Collected, Error> {
        let volume = self.open(|options| options.write(true))?;
        let stored_before = volume.status().stored;
        self.of(volume.collect())?;
        let swept = self.of(volume.sweep())?;
        let collected = Collected {
            stored_before,
            status: volume.status(),
            swept,
            requests: volume.requests(),
        };
        self.of(volume.close())?;
        Ok(collected)
    }

    /// Reads every object that the volume or a snapshot needs, and compares all checksums.
    ///
    /// # Errors
    /// [`Kind::Damaged`] for the first object that is not as it was written, or is missing.
    pub fn verify(&self) -> Result<Checked, Error> {
        let volume = self.open(|options| options)?;
        Ok(Checked {
            verified: self.of(volume.verify())?,
            requests: volume.requests(),
        })
    }

    /// Changes a snapshot, or goes back to it.
    ///
    /// # Errors
    /// As [`collect`](Self::collect); a snapshot that is there already, or is not there.
    pub fn change_snapshot(&self, change: SnapshotChange, name: &str) -> Result<(), Error> {
        let volume = self.open(|options| options.write(true))?;
        self.of(match change {
            SnapshotChange::Make => volume.make_snapshot(name),
            SnapshotChange::Delete => volume.delete_snapshot(name),
            SnapshotChange::RollBack => volume.roll_back(name),
        })?;
        self.of(volume.close())
    }

    /// Ends the work of this writer, which has not closed the volume. If it still runs, all its
    /// later calls fail, and what it has not flushed is lost. `journal_lost` does so without the
    /// journal of that writer: what only that has is lost too.
    ///
    /// # Errors
    /// What the store answers; [`Kind::Busy`] if another writer has opened the volume since, or if
    /// the journal is that of another writer.
    pub fn take_over(&self, writer: &Writer, journal_lost: bool) -> Result<(), Error> {
        let volume = self.open(|options| {
            let options = options.write(true).take_over(true);
            let options = options.of_writer(Some(writer.epoch));
            options.journal_lost(journal_lost)
        })?;
        self.of(volume.close())
    }

    fn open(
        &self,
        with: impl FnOnce(ObjectsOptions) -> ObjectsOptions,
    ) -> Result<ObjectsBackend, Error> {
        let whole = self.location.part().is_none();
        let Some(uri) = volume(self.location).filter(|_| whole) else {
            let message = format!("{} is no volume in an object store", self.location);
            return Err(Error::new(Kind::Parameters, message));
        };
        open_backend(uri, self.remote, with(options(uri, self.remote)))
    }

    fn of<T>(&self, answer: Result<T, ObjectsError>) -> Result<T, Error> {
        answer.map_err(|error| Error::from(error).about(self.location))
    }
}
